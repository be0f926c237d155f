"""DPPO's divergences and the choice of tokens by entropy and covariance, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from on_policy_fakes import make_batch, policy_logprobs, run_around

from alignzoo import Batch
from alignzoo_zoo.grpo.algorithm import GRPO, drawn_logprobs
from alignzoo_zoo.grpo.losses import dppo_loss, kl_cov_loss, signed_kl, signed_tv
from alignzoo_zoo.grpo.token_choice import (
    choose_for_clip_cov,
    choose_high_entropy,
    choose_largest,
    compute_covariances,
)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_binary_divergences_by_hand():
    # From 0.5 to 0.75 and to 0.25: TV 0.25; KL 0.5 log(0.5/0.75) + 0.5 log(0.5/0.25) = 0.1438410.
    # From 1e-5 to 1e-3, a ratio of 100: TV 9.9e-4 and KL 9.4408e-4, both far inside the region.
    # From 0.99 to 0.8, a ratio of 0.81: TV 0.19 and KL 0.99 * 0.2130932 - 0.01 * 2.9957323.
    policy, drawn = logs(0.75, 0.25, 1e-3, 0.8), logs(0.5, 0.5, 1e-5, 0.99)
    tv = signed_tv(policy, drawn)
    assert tv.tolist()[0] == pytest.approx([0.25, -0.25, 9.9e-4, -0.19])
    kl = signed_kl(policy, drawn)
    rare = 1e-5 * math.log(1e-2) + (1 - 1e-5) * math.log((1 - 1e-5) / (1 - 1e-3))
    assert rare == pytest.approx(9.4445e-4, rel=1e-3)
    assert kl.tolist()[0] == pytest.approx([0.1438410, -0.1438410, rare, -0.1810050], rel=1e-5)


def test_a_certain_token_has_a_finite_divergence():
    certain, unlikely = torch.zeros(1, 1), torch.full((1, 1), -80.0)
    assert signed_kl(certain, certain).item() == 0.0
    for found in (signed_kl(certain, unlikely), signed_kl(unlikely, certain)):
        assert found.isfinite().all()


@pytest.mark.parametrize(
    ("advantage", "slopes"), [(2.0, [0.0, -1.0, -200.0]), (-2.0, [3.0, 0.0, 200.0])]
)
def test_dppo_keeps_what_moves_back_and_what_is_rare(advantage, slopes):
    # The slope is -r A: r = 1.5, 0.5 and 100; the first two have left a region of 0.15.
    drawn = logs(0.5, 0.5, 1e-5)
    policy = logs(0.75, 0.25, 1e-3).requires_grad_()
    ratio, a = (policy - drawn).exp(), torch.tensor([[advantage]], dtype=torch.float64)
    dppo_loss(ratio, signed_tv(policy, drawn), a, -0.15, 0.15).sum().backward()
    assert policy.grad.tolist()[0] == pytest.approx(slopes)


def test_dppo_measures_from_the_program_that_drew():
    batch = make_batch()
    assert torch.equal(drawn_logprobs(batch), batch["logprobs"])
    theirs = batch["logprobs"] - 1.0
    theirs[0, 1] = float("nan")
    batch.columns["inference_logprobs"] = theirs
    found = drawn_logprobs(batch)
    assert found[0, 1] == batch["logprobs"][0, 1]
    assert torch.equal(found[1:], theirs[1:])


def test_kl_cov_by_hand():
    # -r A + [chosen] 0.5 |log r| with r = 2 and 1/2; slopes -r A + [chosen] 0.5 sign(log r).
    log_r = torch.tensor([[2.0, 0.5, 2.0]], dtype=torch.float64).log().requires_grad_()
    chosen = torch.tensor([[True, True, False]])
    loss = kl_cov_loss(log_r, torch.tensor([[3.0]], dtype=torch.float64), chosen, 0.5)
    ln2 = math.log(2)
    assert loss.tolist()[0] == pytest.approx([-6 + ln2 / 2, -1.5 + ln2 / 2, -6])
    loss.sum().backward()
    assert log_r.grad.tolist()[0] == pytest.approx([-6 + 0.5, -1.5 - 0.5, -6])


MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


def gather(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return x[mask]


def test_covariances_by_hand():
    # log pi: -1 -2 -3 | 0 -4, mean -2; A: 1 1 1 | -2 -1, mean 0. What is masked does not count.
    logprobs = torch.tensor([[-1.0, -2.0, -3.0, 99.0], [0.0, -4.0, 99.0, 99.0]])
    advantages = torch.tensor([[1.0, 1.0, 1.0, 99.0], [-2.0, -1.0, 99.0, 99.0]])
    found = compute_covariances(logprobs, advantages, MASK, gather)
    assert found.tolist() == [[1.0, 0.0, -1.0, 0.0], [-4.0, 2.0, 0.0, 0.0]]


def test_covariances_are_centred_over_all_processes():
    other = torch.tensor([-8.0])  # log pi and A of the one token of another process
    found = compute_covariances(
        torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[True]]),
        lambda x, mask: torch.cat([x[mask], other]),
    )  # fmt: skip
    assert found.item() == (0.0 + 4.0) * (2.0 + 3.0)


def test_the_largest_and_what_ties_with_the_last_of_them():
    values = torch.tensor([[5.0, 3.0, 3.0, 9.0], [1.0, 3.0, 9.0, 9.0]])
    population = values[MASK]  # 5 3 3 1 3
    assert choose_largest(values, MASK, population, 1).nonzero().tolist() == [[0, 0]]
    assert choose_largest(values, MASK, population, 2).sum() == 4
    assert not choose_largest(values, MASK, population, 0).any()
    assert not choose_largest(values, MASK, population[:0], 1).any()


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("n", [1, 7, 101])
def test_high_entropy_is_above_the_quantile(n, fraction):
    entropy = torch.rand(1, n, generator=torch.Generator().manual_seed(n))
    found = choose_high_entropy(entropy, torch.ones(1, n).bool(), entropy.flatten(), fraction)
    assert torch.equal(found, entropy >= entropy.quantile(1 - fraction))


def whole_round(**more) -> SimpleNamespace:
    def fixed_seed(*what) -> int:
        return sum(map(hash, what[1:])) + 5

    return SimpleNamespace(
        gather_masked=gather, seed_for=fixed_seed, round=0, world=SimpleNamespace(rank=0), **more
    )


def test_clip_cov_draws_among_the_covariances_between_its_bounds():
    mask = torch.ones(40, 50, dtype=torch.bool)
    mask[:, 40:] = False
    values = torch.linspace(0, 6, 2000).reshape(40, 50)
    run = whole_round()
    found = choose_for_clip_cov(run, values, mask, 0.05)
    assert found.sum() == 0.05 * 1600
    assert (values[found] > 1).all() and (values[found] < 5).all() and not (found & ~mask).any()
    assert torch.equal(found, choose_for_clip_cov(run, values, mask, 0.05))
    run.round = 1
    assert not torch.equal(found, choose_for_clip_cov(run, values, mask, 0.05))
    assert choose_for_clip_cov(run, values, mask, 1e-9).sum() == 1
    assert not choose_for_clip_cov(run, torch.full_like(values, 7.0), mask, 0.05).any()


def chosen_by(algorithm: GRPO, batch: Batch, entropy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the columns that `alignzoo_advantage` adds for the choice of tokens."""
    logged: dict[str, torch.Tensor] = {}
    model = SimpleNamespace(evaluating=lambda: torch.no_grad())
    run = whole_round(
        gather=list, shard=list, log_mean=logged.update, model=model, device="cpu",
        micro_tokens=8, temperature=1.0,
        policy=lambda micro, **_: SimpleNamespace(
            entropy=entropy[micro["index"], : micro.tokens.shape[1]]
        ),
    )  # fmt: skip
    before = set(batch.columns)
    algorithm.alignzoo_advantage(run, batch)
    return {n: x for n, x in batch.columns.items() if n not in before} | logged


def test_tokens_of_others_have_no_part_in_any_choice():
    """Log-prob, entropy and position of a token of a tool change no choice, and it is in none."""
    found = []
    for tool in (0.0, 50.0):
        batch = make_batch()
        del batch.columns["chosen"]
        entropy = batch["logprobs"].abs().float()
        entropy[0, 2] = batch["logprobs"][0, 2] = tool  # masked in the fake batch
        for options in ({"top_entropy": 0.3}, {"loss_type": "kl_cov", "cov_fraction": 0.3}):
            columns = chosen_by(GRPO(**options), batch, entropy)
            chosen = columns["high_entropy" if "top_entropy" in options else "chosen"]
            assert chosen.any() and not (chosen & ~batch.mask).any()
            found.append({n: x.tolist() for n, x in columns.items()})
            batch.columns.pop("chosen", None)
            batch.columns.pop("mean_tokens")
    assert found[:2] == found[2:]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "clip_cov"])
def test_only_high_entropy_tokens_have_a_gradient(loss_type):
    """The average is over all tokens, as in the paper."""
    batch = make_batch()
    batch.columns["high_entropy"] = batch.mask & (torch.arange(5) % 2 == 0)
    slopes = []
    for options in ({}, {"top_entropy": 0.2}):
        logps = policy_logprobs(batch)
        loss = GRPO(loss_type=loss_type, **options).alignzoo_loss(run_around(logps), batch)
        loss.sum.backward()
        slopes.append((logps.grad, loss.count))
    (all_tokens, count), (some, same_count) = slopes
    assert torch.equal(some, torch.where(batch["high_entropy"], all_tokens, 0.0))
    assert count == same_count and some.abs().sum() > 0

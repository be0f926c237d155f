"""REINFORCE and REINFORCE++ by hand, and their expected gradient over a vocabulary."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from on_policy_fakes import make_batch, policy_logprobs, run_around

from alignzoo import BadInput
from alignzoo.functional import kl_estimate
from alignzoo.options import build
from alignzoo_zoo.constitutional.algorithm import Constitutional
from alignzoo_zoo.reinforce.algorithm import Reinforce
from alignzoo_zoo.reinforce.losses import (
    length_weighted_mean,
    reinforce_loss,
    rewards_to_go,
    subtract_group_mean,
    update_average,
)
from alignzoo_zoo.spin.algorithm import SPIN

NAN = float("nan")


def test_rewards_to_go_by_hand():
    # The reward is 2 and beta 0.5; the KL from each token on is 1 + 3 - 2 = 2, then 3 - 2 = 1, -2.
    # The second has two tokens: the value past its end is ignored.
    kl = torch.tensor([[1.0, 3.0, -2.0], [4.0, -1.0, 100.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = rewards_to_go(torch.tensor([2.0, 1.0]), kl, mask, 0.5)
    assert found[0].tolist() == [1.0, 1.5, 3.0]
    assert found[1, :2].tolist() == [-0.5, 1.5]


def test_subtract_group_mean_by_hand():
    found = subtract_group_mean(torch.tensor([[1.0, 0.0, 5.0], [2.0, NAN, 4.0], [7.0, NAN, NAN]]))
    assert found[0].tolist() == [-1.0, -2.0, 3.0]
    assert found[1, ::2].tolist() == [-1.0, 1.0]
    assert found[2, 0] == 0.0


def test_the_moving_average_starts_with_the_first_mean():
    average = update_average(None, torch.tensor([1.0, 3.0, NAN]), 0.75)
    assert average == 2.0
    assert update_average(average, torch.tensor([4.0, 8.0]), 0.75) == 0.75 * 2 + 0.25 * 6
    assert update_average(average, torch.tensor([NAN]), 0.75) == 2.0


def test_the_loss_of_reinforce_and_its_gradient():
    """It is -A times the sum of the log-probs, with gradient -A at each token in the mask."""
    batch = make_batch()
    logprobs = policy_logprobs(batch)
    loss = reinforce_loss(logprobs, batch["advantages"][:, None], batch.mask)
    first = logprobs[0].detach()
    assert loss[0].item() == pytest.approx(-1.2 * (first[0] + first[1] + first[3]).item())
    loss.sum().backward()
    expected = torch.where(batch.mask, -batch["advantages"][:, None], 0.0)
    assert torch.equal(logprobs.grad, expected)


@pytest.mark.parametrize(
    ("baseline", "beta", "share"), [("none", 0.3, 1.0), ("moving", 0.3, 1.0), ("mean", 0.3, 0.5)]
)
def test_the_expected_gradient_is_that_of_reward_minus_kl(baseline, beta, share):
    """It sums over all 5^2 rounds of two one-word completions, weighted by their probability.

    The mean of a round of n rewards includes a completion's own reward with weight 1 / n, so the
    gradient is (n - 1) / n of the exact one. The average of earlier rounds is independent of it.
    """
    words, worth = torch.arange(5), torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    logits = torch.tensor([0.9, -0.3, 0.1, -1.2, 0.6], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.0, 0.4, 0.3, -0.1, 0.8], dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    old, mask = logp.detach(), torch.ones(2, 1, dtype=torch.bool)
    algorithm = Reinforce(baseline=baseline)
    mean = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(words.tolist(), repeat=2):
        drawn = torch.tensor(pair)
        rewards = worth[drawn] - beta * kl_estimate(old[drawn], reference[drawn], "k1")
        run = SimpleNamespace(state_of=lambda plugin: {"baseline": 0.7})
        advantages = rewards - algorithm.round_baseline(run, rewards.tolist())
        loss = reinforce_loss(logp[drawn][:, None], advantages[:, None], mask).mean()
        mean = mean + old[drawn].sum().exp() * loss
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    objective = (logp.exp() * (worth - beta * (logp - reference))).sum()
    (exact,) = torch.autograd.grad(-objective, logits)
    assert torch.allclose(found, share * exact, atol=1e-12)
    assert exact.abs().max() > 0.1


def test_a_moving_baseline_is_that_of_earlier_rounds():
    state: dict = {}
    run = SimpleNamespace(state_of=lambda plugin: state)
    algorithm = Reinforce(baseline="moving", decay=0.5)
    assert [algorithm.round_baseline(run, [r]) for r in (4.0, 8.0, NAN, 0.0)] == [
        0.0,
        4.0,
        6.0,
        6.0,
    ]
    assert state == {"baseline": 3.0}


@pytest.mark.parametrize("loss_type", ["plus-plus", "plus-plus-baseline"])
def test_the_loss_of_plus_plus_is_clipped_per_token(loss_type):
    """It averages -min(r A, clip(r) A) and beta (log r_ref)^2 / 2 over the tokens in the mask."""
    batch = make_batch()
    batch.columns["advantages"] = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(6, 5)
    logprobs = policy_logprobs(batch)
    algorithm = Reinforce(loss_type=loss_type, beta=0.4, epsilon=0.1)
    loss = algorithm.alignzoo_loss(run_around(logprobs), batch)
    expected = 0.0
    for n, t in batch.mask.nonzero().tolist():
        p, a = logprobs[n, t].item(), batch["advantages"][n, t].item()
        r = math.exp(p - batch["logprobs"][n, t].item())
        expected -= min(r * a, min(max(r, 0.9), 1.1) * a)
        if loss_type == "plus-plus-baseline":
            expected += 0.4 * (p - batch["reference"][n, t].item()) ** 2 / 2
    assert loss.sum.item() == pytest.approx(expected, rel=1e-9)
    assert loss.count == batch.mask.sum()
    assert loss.metrics["clip_ratio/region_mean"][0] > 0


@pytest.mark.parametrize("loss_type", ["plus-plus", "plus-plus-baseline"])
def test_advantages_are_normalised_over_the_tokens_of_all_processes(loss_type):
    """A second process has the same groups with rewards higher by 10."""
    batch = make_batch()
    batch.columns["rewards"] = torch.tensor([1.0, 0.0, 0.5, NAN, 0.5, 1.0])
    algorithm = Reinforce(loss_type=loss_type, beta=0.0)
    shift = 10.0 if loss_type == "plus-plus" else 0.0  # which a group's mean takes away
    run = SimpleNamespace(gather_masked=lambda x, mask: torch.cat([x[mask], x[mask] + shift]))
    found = algorithm.alignzoo_advantage(run, batch)
    assert found.shape == batch.mask.shape
    assert found[3].isnan().all()  # the sampler sets it to 0
    rewarded = batch.mask & ~found.isnan()
    own = found[rewarded]
    values = (
        batch["rewards"] if shift else subtract_group_mean(batch.groups(batch["rewards"])).flatten()
    )
    spread_out = values[:, None].expand(batch.mask.shape)[rewarded].double()
    both = torch.cat([spread_out, spread_out + shift])
    expected = (spread_out - both.mean()) / both.std(correction=0)
    assert torch.allclose(own.double(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "plus-plus", "baseline": "none"},
        {"loss_type": "plus-plus", "baseline": "greedy"},
        {"baseline": "greedy", "decay": 0.5},
        {"baseline": "length", "group_size": 1},
        {"loss_type": "reinforce", "iterations": 2},
        {"loss_type": "plus-plus-baseline", "group_size": 1},
        {"epsilon": 0.1},
        {"baseline": "mean", "decay": 0.5},
    ],
)
def test_options_that_are_not_read_or_give_no_gradient_are_refused(options):
    with pytest.raises(BadInput, match="option --"):
        Reinforce(**options)


@pytest.mark.parametrize(
    ("algorithm", "former", "name", "value"),
    [
        (Reinforce, "variant", "loss_type", "plus-plus"),
        (SPIN, "passes", "iterations", 2),
        (Constitutional, "passes", "iterations", 3),
    ],
)
def test_former_option_names_are_accepted(algorithm, former, name, value):
    with pytest.warns(DeprecationWarning, match=name.replace("_", "-")):
        assert getattr(build(algorithm, {former: value}), name) == value


def test_the_length_weighted_mean_by_hand():
    # (1 * 2 + 3 * 6) / (1 + 3) = 5; (2 * 1 + 4 * 0) / 6 = 1/3.
    rewards = torch.tensor([[2.0, 6.0, NAN], [1.0, 0.0, NAN], [NAN, NAN, NAN]])
    lengths = torch.tensor([[1, 3, 9], [2, 4, 9], [1, 1, 1]])
    found = length_weighted_mean(rewards, lengths)
    assert found.shape == (3, 1)
    assert found.flatten().tolist() == pytest.approx([5.0, 1 / 3, 0.0])


def test_opo_counts_the_tokens_that_the_policy_wrote():
    # Lengths 3 of 4 (one is of a tool), 2, 3 and 1, 5, 2; advantages are rewards minus the means.
    batch = make_batch()
    batch.columns["rewards"] = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.5, 1.0])
    found = Reinforce(baseline="length", beta=0.0).alignzoo_advantage(SimpleNamespace(), batch)
    first, second = (3 * 1.0 + 3 * 0.5) / 8, (5 * 0.5 + 2 * 1.0) / 8
    assert found.tolist() == pytest.approx(
        [1 - first, -first, 0.5 - first, -second, 0.5 - second, 1 - second]
    )


def test_remax_subtracts_the_reward_of_the_greedy_completion():
    batch = make_batch()
    batch.columns["rewards"] = torch.tensor([1.0, 0.0, 0.5, 0.0, NAN, 1.0])
    batch.columns["greedy"] = torch.tensor([0.75, 0.75, 0.75, NAN, NAN, NAN])
    found = Reinforce(baseline="greedy", beta=0.0).alignzoo_advantage(SimpleNamespace(), batch)
    assert found.tolist()[:4] == [0.25, -0.75, -0.25, 0.0]
    assert found[4].isnan() and found[5] == 1.0


def test_opo_has_the_least_variance_if_gradients_grow_with_length():
    """Over completions with ||grad log pi||^2 = |y|, no other baseline has a smaller variance."""
    draw = torch.Generator().manual_seed(0)
    rewards = torch.rand(1, 50, generator=draw)
    lengths = torch.randint(1, 40, (1, 50), generator=draw)
    best = length_weighted_mean(rewards, lengths)

    def second_moment(baseline: torch.Tensor) -> float:
        return (lengths * (rewards - baseline) ** 2).mean().item()

    assert all(second_moment(best) < second_moment(best + shift) for shift in (-0.01, 0.01))
    assert (best - rewards.mean()).abs() > 0.01

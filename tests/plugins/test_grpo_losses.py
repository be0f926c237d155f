"""GRPO's family against NumPy written token by token, with gradients by finite differences."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from on_policy_fakes import LONGEST, make_batch, policy_logprobs, run_around

from alignzoo import BadInput
from alignzoo.algorithm import canonical_name
from alignzoo_zoo.grpo.advantages import decoupled_advantages, group_advantages
from alignzoo_zoo.grpo.algorithm import GRPO
from alignzoo_zoo.grpo.loss_types import LOSS_TYPES, same_at_ratio_one

NAN = float("nan")


def test_group_advantages_by_hand():
    # 1, 0, 0, 1: mean 0.5, std sqrt(4 * 0.25 / 3) = 0.5773503; 0.5 / 0.5774503 = 0.8658754.
    # Ties are 0. With NaN: 2, 4 have mean 3 and std sqrt(2); 1 / 1.4143136 = 0.7070568.
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0], [2.0, NAN, 4.0, NAN]])
    found = group_advantages(rewards[..., None], "group")
    assert found[0].tolist() == pytest.approx([0.8658754, -0.8658754, -0.8658754, 0.8658754])
    assert found[1].tolist() == [0.0] * 4
    assert found[2].tolist() == pytest.approx([-0.7070568, 0.0, 0.7070568, 0.0])
    plain = group_advantages(rewards[..., None], "none")
    assert plain[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    assert plain[2].tolist() == [-1.0, 0.0, 1.0, 0.0]
    alone = group_advantages(torch.tensor([[5.0, NAN], [NAN, NAN]])[..., None], "group")
    assert alone.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_batch_scale_is_the_deviation_of_all_rewards():
    # 1, 0, 3, 3: mean 1.75, squares 0.5625 + 3.0625 + 2 * 1.5625 = 6.75, std 1.5.
    found = group_advantages(torch.tensor([[1.0, 0.0], [3.0, 3.0]])[..., None], "batch")
    assert found[0].tolist() == pytest.approx([0.5 / 1.5001, -0.5 / 1.5001])
    assert found[1].tolist() == [0.0, 0.0]


def test_decoupled_advantages_by_hand():
    # Rewards of different scale, (1, 0) and (0, 100), count the same: their sum is 0.
    rewards = torch.tensor([[[1.0, 0.0], [0.0, 100.0]], [[1.0, 7.0], [0.0, NAN]]])
    found = decoupled_advantages(rewards, [1.0, 1.0])
    z = 0.5 / (math.sqrt(0.5) + 1e-4)
    sums = np.array([z - 50 / (math.sqrt(5000) + 1e-4), 0.0, z, -z])
    sums[1] = -sums[0]
    expected = (sums - sums.mean()) / (sums.std(ddof=1) + 1e-4)
    assert found.flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    # With a weight of 3 the second reward decides the first group: sums z - 3z and 3z - z.
    weighed = decoupled_advantages(rewards, [1.0, 3.0])
    hundred = 50 / (math.sqrt(5000) + 1e-4)
    sums = np.array([z - 3 * hundred, 3 * hundred - z, z, -z])
    expected = (sums - sums.mean()) / (sums.std(ddof=1) + 1e-4)
    assert weighed.flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    nothing = decoupled_advantages(torch.full((1, 2, 2), NAN), [1.0, 1.0])
    assert nothing.tolist() == [[0.0, 0.0]]


def ppo(ratio: float, a: float, low: float, high: float) -> float:
    return -min(ratio * a, min(max(ratio, low), high) * a)


def binary(name: str, policy: float, old: float) -> float:
    """Compute a divergence of "this token or another", with the sign of the move."""
    p, m = math.exp(policy), math.exp(old)
    kl = m * math.log(m / p) + (1 - m) * math.log((1 - m) / (1 - p))
    return p - m if name == "dppo_tv" else math.copysign(kl, p - m)


def reference_loss(name: str, logps: np.ndarray, frozen: np.ndarray, batch, epsilons) -> float:
    """Compute one loss, completion by completion; `frozen` are log-probs without a gradient."""
    old, mask = batch["logprobs"].numpy(), batch.mask.numpy()
    chosen = batch["chosen"].numpy()
    low, high = epsilons
    totals, means = [], []
    for n, a in enumerate(batch["advantages"].tolist()):
        tokens = np.flatnonzero(mask[n])
        d, still = (logps - old)[n, tokens], (frozen - old)[n, tokens]
        logp, size = logps[n, tokens], len(tokens)
        pairs = list(zip(chosen[n, tokens], d, strict=True))
        if name in ("grpo", "dr_grpo", "dapo", "bnpo"):
            each = [ppo(math.exp(x), a, 1 - low, 1 + high) for x in d]
        elif name in ("gspo", "luspo"):
            each = [ppo(math.exp(d.mean()), a, 1 - low, 1 + high)] * size
        elif name == "cispo":
            each = [-min(math.exp(s), 1 + high) * a * x for s, x in zip(still, logp, strict=True)]
        elif name == "sapo":
            tau = 1.0 if a > 0 else 1.05
            each = [-4 / tau / (1 + math.exp(-tau * (math.exp(x) - 1))) * a for x in d]
        elif name == "gmpo":
            held = [min(x, high) if a > 0 else max(x, -low) for x in d]
            each = [-a * math.exp(sum(held) / size)] * size
        elif name in ("dppo_tv", "dppo_kl"):
            moves = [binary(name, frozen[n, t], old[n, t]) for t in tokens]
            beyond = [move > high if a > 0 else move < -low for move in moves]
            each = [0.0 if b else -math.exp(x) * a for b, x in zip(beyond, d, strict=True)]
        elif name == "clip_cov":
            each = [0.0 if c else ppo(math.exp(x), a, 1 - low, 1 + high) for c, x in pairs]
        elif name == "kl_cov":
            each = [-math.exp(x) * a + 1.5 * c * abs(x) for c, x in pairs]
        else:
            k, rate = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
            w = math.exp(still.sum())
            each = [-(w**k) * math.exp(rate * (1 - w)) * a * x for x in logp]
        totals.append(sum(each))
        means.append(sum(each) / size)
    if name in ("grpo", "gspo", "sapo", "gmpo"):
        return float(np.mean(means))
    count = {
        "dr_grpo": LONGEST * len(totals),
        "dppo_tv": LONGEST * len(totals),
        "dppo_kl": LONGEST * len(totals),
        "luspo": len(totals),
        "bnpo": mask.sum(),
    }.get(name, 2.5 * len(totals))
    return float(sum(totals) / count)


GROUPS = [
    {"grpo", "gspo", "sapo", "gmpo"},
    {"dapo", "bnpo", "cispo", "vespo", "kl_cov"},
    {"dr_grpo", "dppo_tv", "dppo_kl"},
    {"luspo"},
    {"clip_cov"},  # some tokens have no gradient
]


def test_which_losses_are_one_algorithm_while_every_ratio_is_one():
    batch = make_batch()
    batch.columns["mean_tokens"] = torch.full((6,), batch.mask.sum() / 6)
    logps = policy_logprobs(batch)
    batch.columns["logprobs"] = logps.detach().clone()
    slopes = {}
    for name in LOSS_TYPES:
        loss = GRPO(loss_type=name, beta=0.1).alignzoo_loss(run_around(logps), batch)
        (loss.sum / loss.count).backward()
        slopes[name], logps.grad = logps.grad, None
    for group in GROUPS:
        first = next(name for name in LOSS_TYPES if name in group)
        assert same_at_ratio_one(first) is None
        for name in group - {first}:
            assert torch.allclose(slopes[name], slopes[first], rtol=0, atol=1e-7), name
            assert same_at_ratio_one(name) == first
    firsts = [next(name for name in LOSS_TYPES if name in group) for group in GROUPS]
    for one, other in itertools.combinations(firsts, 2):
        assert not torch.allclose(slopes[one], slopes[other], rtol=0, atol=1e-3), (one, other)
    # These two differ by a constant if both are scaled alike.
    assert torch.allclose(slopes["luspo"], LONGEST * slopes["dr_grpo"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "external", "said"),
    [
        ({"loss_type": "gspo"}, False, "--loss-type gspo takes the steps of grpo"),
        ({"loss_type": "vespo"}, False, "--loss-type vespo takes the steps of dapo"),
        ({"loss_type": "bnpo", "round_prompts": 4}, False, "takes the steps of dapo"),
        ({"loss_type": "dppo_kl"}, False, "takes the steps of dr_grpo"),
        ({"loss_type": "clip_cov"}, False, ""),
        ({"loss_type": "grpo"}, False, ""),
        ({"loss_type": "dr_grpo"}, False, ""),
        ({"loss_type": "luspo"}, False, ""),
        ({"loss_type": "gspo", "iterations": 2}, False, ""),
        ({"loss_type": "gspo", "round_prompts": 8}, False, ""),
        ({"loss_type": "bnpo", "dynamic_sampling": 1}, False, ""),
        ({"loss_type": "gspo"}, True, ""),
    ],
)
def test_a_run_says_which_loss_its_loss_is(options, external, said):
    notes: list[str] = []
    run = SimpleNamespace(
        recipe=SimpleNamespace(batch_size=4, sampler="vllm" if external else None),
        ui=SimpleNamespace(note=notes.append),
    )
    GRPO(**options).alignzoo_start(run)
    assert said in "".join(notes) and len(notes) == bool(said)


def name_of(options: dict, **recipe) -> str:
    settings = SimpleNamespace(**({"batch_size": 4, "sampler": None} | recipe))
    return canonical_name("grpo", GRPO(**options), settings)


def test_copies_have_one_canonical_name():
    names = {loss_type: name_of({"loss_type": loss_type}) for loss_type in LOSS_TYPES}
    for one, other in itertools.combinations(LOSS_TYPES, 2):
        same = any({one, other} <= group for group in GROUPS)
        assert (names[one] == names[other]) == same, (one, other)
    assert names["grpo"] == "grpo" and names["bnpo"] == "grpo,loss_type=dapo"
    # Epsilons have no effect then, and other options have.
    assert name_of({"loss_type": "gspo", "epsilon": 0.3, "beta": 0.1}) == "grpo,beta=0.1"
    assert name_of({"loss_type": "dapo", "scale_rewards": "none"}) == (
        "grpo,loss_type=dapo,scale_rewards=none"
    )
    assert name_of({"loss_type": "dr_grpo", "scale_rewards": "none"}) == names["dr_grpo"]
    assert name_of({"loss_type": "kl_cov", "cov_penalty": 2.0}) == "grpo,loss_type=dapo"
    assert name_of({"loss_type": "clip_cov", "cov_fraction": 0.1, "epsilon": 0.4}) == (
        "grpo,loss_type=clip_cov,cov_fraction=0.1"
    )
    assert name_of({"loss_type": "gspo"}, sampler="vllm") == "grpo,loss_type=gspo"
    several = {"loss_type": "gspo", "iterations": 2}
    assert name_of(several) == "grpo,iterations=2,loss_type=gspo"


def test_a_subclass_is_not_what_its_base_class_is():
    class Own(GRPO):
        pass

    recipe = SimpleNamespace(batch_size=4, sampler=None)
    assert canonical_name("own", Own(loss_type="gspo"), recipe) == "own,loss_type=gspo"


def test_dr_grpo_by_its_name_does_not_divide_by_the_deviation():
    assert GRPO(loss_type="dr_grpo").scale == "none"
    assert GRPO(loss_type="dr_grpo", scale_rewards="group").scale == "group"
    assert GRPO().scale == GRPO(loss_type="dapo").scale == "group"
    with pytest.raises(BadInput, match="scale-rewards"):
        GRPO(loss_type="dr_grpo", normalize_rewards="before")


EPSILONS = {
    "gspo": (0.1, 0.2),
    "luspo": (0.1, 0.2),
    "gmpo": (0.3, 0.4),
    "cispo": (None, 0.25),
    "dppo_tv": (0.05, 0.06),
    "dppo_kl": (0.01, 0.012),
}
UNCLIPPED = {"sapo": {}, "vespo": {}, "kl_cov": {"cov_penalty": 1.5}}


@pytest.mark.parametrize("name", list(LOSS_TYPES))
def test_every_loss_and_its_gradient(name):
    low, high = EPSILONS.get(name, (0.2, 0.3))
    given = UNCLIPPED.get(name, {"epsilon": low, "epsilon_high": high})
    algorithm = GRPO(loss_type=name, **given)
    batch = make_batch()
    logps = policy_logprobs(batch)
    loss = algorithm.alignzoo_loss(run_around(logps), batch)
    (loss.sum / loss.count).backward()
    at = logps.detach().numpy()
    assert loss.mean == pytest.approx(reference_loss(name, at, at, batch, (low, high)), rel=1e-6)
    step = 1e-6
    for n, t in np.ndindex(*at.shape):
        shift = np.zeros_like(at)
        shift[n, t] = step
        up, down = (
            reference_loss(name, at + s * shift, at, batch, (low, high)) for s in (1.0, -1.0)
        )
        assert logps.grad[n, t].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)
    if name not in UNCLIPPED:
        shares = [loss.metrics[f"clip_ratio/{side}_mean"][0].item() for side in ("low", "high")]
        assert (shares[0] > 0) == (name != "cispo") and shares[1] > 0


@pytest.mark.parametrize("name", list(LOSS_TYPES))
@pytest.mark.parametrize("scale", [30.0, 3000.0])
def test_extreme_ratios_give_no_nan(name, scale):
    batch = make_batch()
    logps = policy_logprobs(batch, scale)
    loss = GRPO(loss_type=name, beta=0.1).alignzoo_loss(run_around(logps), batch)
    loss.sum.backward()
    assert loss.sum.isfinite() and logps.grad.isfinite().all()


@pytest.mark.parametrize("name", list(LOSS_TYPES))
def test_at_ratio_1_every_loss_has_the_gradient_of_reinforce(name):
    """Its gradient is -A grad log pi, in the average of the loss over tokens."""
    batch = make_batch()
    logps = policy_logprobs(batch, 0.0)
    algorithm = GRPO(loss_type=name)
    loss = algorithm.alignzoo_loss(run_around(logps), batch)
    loss.sum.backward()
    sizes = batch.mask.sum(-1, keepdim=True)
    mean = LOSS_TYPES[name].average == "completions"
    learned = batch.mask & ~batch["chosen"] if name == "clip_cov" else batch.mask
    expected = -batch["advantages"][:, None] * learned / (sizes if mean else 1)
    assert torch.allclose(logps.grad, expected, atol=1e-12)


def test_kl_and_entropy_are_added_to_every_token():
    batch = make_batch()
    logps = policy_logprobs(batch)
    plain = GRPO(loss_type="bnpo").alignzoo_loss(run_around(logps), batch)
    for estimator in ("k2", "k3"):
        options = {"beta": 0.7, "kl_estimator": estimator, "entropy_bonus": 0.2}
        loss = GRPO(loss_type="bnpo", **options).alignzoo_loss(run_around(logps), batch)
        x = (batch["reference"] - logps)[batch.mask].detach().numpy()
        kl = (x**2 / 2 if estimator == "k2" else np.exp(x) - 1 - x).mean()
        h = (0.3 + logps[batch.mask].detach().numpy() ** 2).mean()
        assert loss.mean == pytest.approx(plain.mean + 0.7 * kl - 0.2 * h, rel=1e-6)
        total, count = loss.metrics["kl"]
        assert (total / count).item() == pytest.approx(kl, rel=1e-6)
    in_reward = GRPO(loss_type="bnpo", beta=0.7, kl_in="reward", kl_estimator="k1")
    assert in_reward.alignzoo_loss(run_around(logps), batch).mean == plain.mean


@pytest.mark.parametrize("name", list(LOSS_TYPES))
def test_masked_truncated_completions_have_no_gradient(name):
    batch = make_batch(ended=False)
    logps = policy_logprobs(batch)
    loss = GRPO(loss_type=name, mask_truncated=True).alignzoo_loss(run_around(logps), batch)
    loss.sum.backward()
    assert (logps.grad[[1, 3]] == 0).all()
    assert logps.grad[[0, 4, 5]].abs().sum() > 0
    if LOSS_TYPES[name].average == "completions":
        assert loss.count.item() == 6  # they count in the mean, with a loss of 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"loss_type": "sapo", "epsilon": 0.2}, "--loss-type sapo does not read it"),
        ({"loss_type": "cispo", "epsilon": 0.2}, "--loss-type cispo does not read it"),
        ({"loss_type": "vespo", "epsilon_high": 0.2}, "--loss-type vespo does not read it"),
        ({"loss_type": "kl_cov", "epsilon": 0.2}, "--loss-type kl_cov does not read it"),
        ({"loss_type": "dapo", "cov_fraction": 0.1}, "--loss-type dapo does not read it"),
        ({"loss_type": "clip_cov", "cov_penalty": 2.0}, "clip_cov does not read it"),
        ({"loss_type": "gspo", "top_entropy": 0.2}, "has one ratio for all tokens"),
        ({"pass_at": 9}, "cannot be told from groups of 8 completions"),
        ({"pass_at": 4, "normalize_rewards": "before"}, "--normalize-rewards before does not"),
        ({"kl_estimator": "k1"}, "expected gradient is zero"),
        ({"normalize_rewards": "before", "scale_rewards": "none"}, "--scale-rewards"),
        ({"normalize_rewards": "before", "beta": 0.1, "kl_in": "reward"}, "--kl-in"),
    ],
)
def test_options_that_are_not_read_are_refused(options, problem):
    with pytest.raises(BadInput, match=problem):
        GRPO(**options)


def test_epsilon_is_for_both_sides_unless_epsilon_high_is_given():
    assert LOSS_TYPES["grpo"].bounds(0.1, None) == pytest.approx((0.9, 1.1))
    assert LOSS_TYPES["grpo"].bounds(None, 0.3) == pytest.approx((0.8, 1.3))
    assert LOSS_TYPES["gspo"].bounds(None, None) == pytest.approx((0.9997, 1.0004))
    assert LOSS_TYPES["dppo_tv"].bounds(None, 0.3) == (-0.15, 0.3)
    log_bounds = LOSS_TYPES["gmpo"].bounds(None, None)
    assert log_bounds == pytest.approx((math.exp(-0.4), math.exp(0.4)))

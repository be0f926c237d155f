"""Functions of on-policy algorithms, against sums over a whole vocabulary and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.functional import (
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    importance_weights,
    kl_estimate,
    nanstd,
    rewards_apart,
    whiten,
)

NAN = float("nan")
WORDS = torch.tensor([0.9, -0.3, 0.1, -1.2, 0.6], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.3, -0.1, 0.8], dtype=torch.float64).log_softmax(-1)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum()


def expected(estimator, logits: torch.Tensor) -> torch.Tensor:
    """The mean over all five words as the policy draws them; gradient of the estimates alone."""
    logp = logits.log_softmax(-1)
    return (logp.detach().exp() * kl_estimate(logp, REFERENCE, estimator)).sum()


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    exact = kl(WORDS.log_softmax(-1), REFERENCE).item()
    assert exact > 0.1
    assert expected("k1", WORDS).item() == pytest.approx(exact, abs=1e-12)
    assert expected("k3", WORDS).item() == pytest.approx(exact, abs=1e-12)
    assert abs(expected("k2", WORDS).item() - exact) > 0.01


def gradient_of(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits)[0]


def test_the_gradients_that_each_estimator_has_in_the_mean():
    logits = WORDS.clone().requires_grad_()
    policy = logits.log_softmax(-1)
    reverse = gradient_of(kl(policy, REFERENCE), logits)
    forward = gradient_of(kl(REFERENCE, logits.log_softmax(-1)), logits)
    found = {e: gradient_of(expected(e, logits), logits) for e in ("k1", "k2", "k3")}
    assert torch.allclose(found["k1"], torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found["k2"], reverse, atol=1e-12)
    assert torch.allclose(found["k3"], forward, atol=1e-12)
    assert (forward - reverse).abs().max() > 0.01


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("distance", [200.0, -200.0])
def test_a_reference_far_away_gives_no_nan(estimator, distance):
    policy = torch.tensor([-250.0], requires_grad=True)
    value = kl_estimate(policy, torch.tensor([-250.0 + distance]), estimator)
    value.sum().backward()
    assert value.isfinite().all() and policy.grad.isfinite().all()


def test_the_clip_on_both_sides_by_hand():
    # A = 2: r = 1.5 is held at 1.2, without gradient; r = 0.5 is not held.
    # A = -2: r = 0.5 is held at 0.8, without gradient; r = 1.5 is not held.
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([2.0, 2.0, -2.0, -2.0], dtype=torch.float64)
    loss = clipped_surrogate(ratio, advantages, 0.8, 1.2)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([-2.4, -1.0, 3.0, 1.6])
    assert ratio.grad.tolist() == [0.0, -2.0, 2.0, 0.0]
    shares = clip_metrics(ratio, advantages, 0.8, 1.2)
    assert shares["clip_ratio/high_mean"].tolist() == [True, False, False, False]
    assert shares["clip_ratio/low_mean"].tolist() == [False, False, False, True]
    assert shares["clip_ratio/region_mean"].tolist() == [True, False, False, True]


def test_an_extreme_ratio_stays_finite():
    log_ratio = torch.tensor([1e4, -1e4, 0.5], requires_grad=True)
    ratio = importance_ratio(log_ratio)
    ratio.sum().backward()
    assert ratio.tolist() == pytest.approx([math.exp(20), math.exp(-20), math.exp(0.5)])
    assert log_ratio.grad.tolist() == pytest.approx([0.0, 0.0, math.exp(0.5)])


def test_the_standard_deviation_has_bessels_correction_and_leaves_nan_out():
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, over 2: sqrt(7).
    x = torch.tensor([[1.0, 2.0, 6.0], [5.0, NAN, NAN], [4.0, NAN, 8.0], [NAN, NAN, NAN]])
    assert nanstd(x).tolist() == pytest.approx([math.sqrt(7), 0.0, math.sqrt(8), 0.0])


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2)])
def test_a_value_per_completion_does_not_broadcast_over_tokens(shape):
    # N == T == 2: torch itself would take `[N]` for a row of tokens.
    per_token, other = torch.zeros(2, 2), torch.zeros(shape)
    for function in (
        lambda x, y: clipped_surrogate(x, y, 0.8, 1.2),
        lambda x, y: clip_metrics(x, y, 0.8, 1.2),
        lambda x, y: kl_estimate(x, y, "k3"),
        lambda x, y: importance_weights(x, y, 2.0),
    ):
        function(per_token, torch.zeros(2, 1))
        for x, y in ((per_token, other), (other, per_token)):
            with pytest.raises(ValueError, match="they are equal"):
                function(x, y)
    with pytest.raises(ValueError, match="population"):
        whiten(per_token, per_token)


def test_rewards_by_name():
    batch = collate([Example([1], [[2], [3, 4]])])
    batch.columns |= {"rewards": torch.ones(2), "reward/b": torch.zeros(2)}
    batch.columns["reward/a"] = torch.tensor([1.0, NAN])
    assert list(rewards_apart(batch)) == ["a", "b"]
    assert rewards_apart(batch)["a"] is batch["reward/a"]


def test_whitening_is_over_everyone():
    # The mean of 1, 3, 5, 7 is 4, and their variance (9 + 1 + 1 + 9) / 4 = 5.
    everyone, s = torch.tensor([1.0, 3.0, NAN, 5.0, 7.0]), math.sqrt(5)
    found = whiten(torch.tensor([[1.0, 3.0], [7.0, NAN]]), everyone)
    torch.testing.assert_close(found.flatten()[:3], torch.tensor([-3.0, -1.0, 3.0]) / s)
    assert found[1, 1].isnan()
    kept = whiten(torch.tensor([1.0]), everyone, shift_mean=False)
    torch.testing.assert_close(kept, torch.tensor([4 - 3 / s]))
    ties = torch.full((3,), 0.1)
    assert whiten(ties, ties).tolist() == [0.0] * 3
    assert whiten(torch.tensor([NAN]), torch.tensor([NAN])).isnan().all()

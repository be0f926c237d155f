"""ORPO, SimPO, AlphaPO, CPO and SLiC-HF against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plugin_fakes import bigram, fake_run, logprobs_of

from alignzoo import Example, collate
from alignzoo_zoo.cpo.algorithm import CPO
from alignzoo_zoo.cpo.losses import cpo_loss
from alignzoo_zoo.orpo.algorithm import ORPO
from alignzoo_zoo.orpo.losses import log_odds, orpo_loss
from alignzoo_zoo.simpo.algorithm import SimPO
from alignzoo_zoo.simpo.losses import margin_loss, shaped_reward
from alignzoo_zoo.slic.algorithm import SLiC
from alignzoo_zoo.slic.losses import slic_loss


def leaf(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def test_orpo_by_hand():
    # P = 1/2 and 1/5: odds 1 and 1/4, so the log odds ratio is ln 4 and sigmoid of it 4/5.
    # L = ln 2 - 0.5 ln 0.8 = 0.8047190. d log odds / d log P = 1 / (1 - P) = 2 and 1.25:
    # dL/dchosen = -1 - 0.5 * 0.2 * 2 = -1.2, dL/drejected = 0.5 * 0.2 * 1.25 = 0.125.
    chosen, rejected = leaf(math.log(0.5)), leaf(math.log(0.2))
    loss = orpo_loss(chosen, rejected, 0.5)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.8047190, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-1.2, abs=1e-9)
    assert rejected.grad.item() == pytest.approx(0.125, abs=1e-9)


def test_simpo_by_hand():
    # r = 2 * -0.5 = -1 and 2 * -1.2 = -2.4; r_w - r_l - gamma = 0.4: L = ln(1 + e^-0.4) =
    # 0.5130153, dL/dchosen = -2 * (1 - 0.5986877) = -0.8026247.
    chosen, rejected = leaf(-0.5), leaf(-1.2)
    loss = margin_loss(shaped_reward(chosen, 2.0, 0.0), shaped_reward(rejected, 2.0, 0.0), 1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5130153, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-0.8026247, abs=1e-7)
    assert rejected.grad.item() == pytest.approx(0.8026247, abs=1e-7)


def test_alphapo_by_hand():
    # alpha = 0.5, P = 1/4 and 1/9: P^-0.5 = 2 and 3, r = 2 (1 - 2) / 0.5 = -4 and 2 (1 - 3) / 0.5
    # = -8; r_w - r_l - gamma = 4 - 3.6 = 0.4. d r / d log P = 2 P^-0.5 = 4 and 6.
    chosen, rejected = leaf(math.log(1 / 4)), leaf(math.log(1 / 9))
    rewards = shaped_reward(chosen, 2.0, 0.5), shaped_reward(rejected, 2.0, 0.5)
    assert [r.item() for r in rewards] == pytest.approx([-4, -8], abs=1e-9)
    loss = margin_loss(*rewards, 3.6)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5130153, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-4 * 0.4013123, abs=1e-6)
    assert rejected.grad.item() == pytest.approx(6 * 0.4013123, abs=1e-6)


def test_alphapo_has_simpo_as_its_limit():
    logp = torch.tensor([-0.1, -2.0, -5.0], dtype=torch.float64)
    limit = shaped_reward(logp, 2.5, 1e-7)
    assert torch.allclose(limit, shaped_reward(logp, 2.5, 0.0), atol=1e-4)


def test_cpo_by_hand():
    # beta (chosen - rejected) = 0.2 * (-3 + 5) = 0.4; L = 0.5130153 + 0.7 * 1.5 = 1.5630153.
    chosen, rejected, mean = leaf(-3.0), leaf(-5.0), leaf(-1.5)
    loss = cpo_loss(chosen, rejected, mean, 0.2, 0.7)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1.5630153, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-0.2 * 0.4013123, abs=1e-7)
    assert rejected.grad.item() == pytest.approx(0.2 * 0.4013123, abs=1e-7)
    assert mean.grad.item() == pytest.approx(-0.7)


@pytest.mark.parametrize(
    ("rejected", "loss", "gradients"),
    # Inside the margin: 2.5 + 3 - 4 + 0.2 * 3 = 2.1. Beyond it the likelihood alone is left.
    [(-4.0, 2.1, (-1.2, 1.0)), (-6.0, 0.6, (-0.2, 0.0))],
)
def test_slic_by_hand(rejected, loss, gradients):
    w, l = leaf(-3.0), leaf(rejected)  # noqa: E741 (the field's names)
    value = slic_loss(w, l, 2.5, 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert (w.grad.item(), l.grad.item()) == pytest.approx(gradients)


@pytest.mark.parametrize("logp", [0.0, -1e-12, -1e-3, -math.log(2), -50.0, -500.0])
def test_log_odds_are_finite_and_right(logp):
    x = torch.tensor([logp], requires_grad=True)
    value = log_odds(x)
    value.sum().backward()
    bounded = min(logp, -1e-6)
    assert value.item() == pytest.approx(bounded - math.log(-math.expm1(bounded)), rel=1e-5)
    assert math.isfinite(x.grad.item())


@pytest.mark.parametrize(("chosen", "rejected"), [(-50.0, -0.01), (-0.01, -50.0), (-500.0, 0.0)])
def test_extreme_log_probs_stay_finite(chosen, rejected):
    w, l = (torch.tensor([x], requires_grad=True) for x in (chosen, rejected))  # noqa: E741
    shaped = [shaped_reward(x, 2.0, alpha) for alpha in (0.0, 0.5) for x in (w, l)]
    total = (
        orpo_loss(w, l, 0.1)
        + margin_loss(*shaped[:2], 1.0)
        + margin_loss(*shaped[2:], 1.0)
        + cpo_loss(w, l, w, 0.1, 1.0)
        + slic_loss(w, l, 1.0, 0.1)
    )
    total.sum().backward()
    assert all(math.isfinite(x.item()) for x in (total, w.grad, l.grad))


PAIRS = collate(
    [
        Example([1, 2], [[3, 4, 5], [6]], masks=[[True, False, True], [True]]),
        Example([5], [[0], [2, 2, 6, 1]]),
    ]
)


def sums_and_means(policy: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return sums and means per pair and side over unmasked tokens, `[2, 2]` each."""
    logprobs = logprobs_of(policy, PAIRS).detach().numpy()
    mask = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    total = (logprobs * mask).sum(1)
    return total.reshape(2, 2), (total / mask.sum(1)).reshape(2, 2)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def test_length_and_mask_reach_every_loss():
    """The hooks against NumPy: which losses take sums, which means, of sides of unequal length."""
    policy = bigram(4)
    run = fake_run(policy)
    (sw, sl), (mw, ml) = (x.T for x in sums_and_means(policy))
    odds = (mw - np.log(1 - np.exp(mw))) - (ml - np.log(1 - np.exp(ml)))
    expected = {
        ORPO(odds_weight=0.4): -mw + 0.4 * softplus(-odds),
        SimPO(beta=1.5, gamma=0.3): softplus(-(1.5 * (mw - ml) - 0.3)),
        SimPO(beta=1.5, gamma=0.3, alpha=0.25): softplus(
            -(1.5 / 0.25 * (np.exp(-0.25 * ml) - np.exp(-0.25 * mw)) - 0.3)
        ),
        CPO(beta=0.2, nll_weight=0.6): softplus(-0.2 * (sw - sl)) - 0.6 * mw,
        SLiC(delta=2.0, nll_weight=0.3): np.maximum(0, 2 - sw + sl) - 0.3 * sw,
    }
    for algorithm, losses in expected.items():
        loss = algorithm.alignzoo_loss(run, PAIRS)
        assert loss.sum.item() == pytest.approx(losses.sum(), rel=1e-6), algorithm
        assert loss.count.item() == 2


def test_ties_are_not_accurate():
    """With equal sides the loss follows the formula, and the accuracy is 0."""
    twins = collate([Example([1], [[2, 3], [2, 3]])])
    run = fake_run(bigram(5))
    for algorithm in (ORPO(), SimPO(), SimPO(alpha=0.25), CPO(), SLiC()):
        loss = algorithm.alignzoo_loss(run, twins)
        assert math.isfinite(loss.sum.item())
        assert loss.metrics["rewards/accuracies"][0].item() == 0.0
        assert loss.metrics["rewards/margins"][0].item() == 0.0
    # ln(1 + e^gamma), and the margin in full
    assert SimPO(gamma=1.0).alignzoo_loss(run, twins).mean == pytest.approx(1.3132617, abs=1e-6)
    assert SLiC(delta=2.0, nll_weight=0.0).alignzoo_loss(run, twins).mean == 2.0

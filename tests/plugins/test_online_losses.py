"""Losses of fresh pairs by hand, and Nash-MD's gradient against the exact one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from alignzoo_zoo.nash_md.losses import nash_md_loss, preference_probability
from alignzoo_zoo.xpo.losses import exploration_bonus

NAN = float("nan")


def gradient(loss, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(x).sum(), x)
    return found


def test_the_bonus_lowers_the_probability_of_reference_completions():
    logps = torch.tensor([-2.0, -30.0])
    assert exploration_bonus(logps, 0.1).tolist() == pytest.approx([-0.2, -3.0])
    # Gradient descent lowers log pi(y'|x), for any value of it.
    assert gradient(lambda x: exploration_bonus(x, 0.1), logps).tolist() == pytest.approx(
        [0.1, 0.1]
    )


def test_preference_probability_by_hand():
    own, other = torch.tensor([1.0, 0.0, 2.0, NAN, 1.0]), torch.tensor([0.0, 1.0, 2.0, 1.0, NAN])
    sigmoid = preference_probability(own, other, "sigmoid")
    e = math.e
    assert sigmoid[:3].tolist() == pytest.approx([e / (1 + e), 1 / (1 + e), 0.5])
    assert preference_probability(own, other, "hard")[:3].tolist() == [1.0, 0.0, 0.5]
    for kind in ("sigmoid", "hard"):
        assert preference_probability(own, other, kind)[3:].isnan().all()


def test_nash_md_by_hand():
    # beta 1/2; log pi - log pi_ref = 1 and -2; P - 1/2 = 1/4 and -1/2.
    policy = torch.tensor([-3.0, -4.0], dtype=torch.float64)
    reference = torch.tensor([-4.0, -2.0], dtype=torch.float64)
    centred = torch.tensor([0.25, -0.5], dtype=torch.float64)
    # Parentheses: 1/4 - 1/2 = -1/4 and -1/2 + 1 = 1/2; losses -(-1/4)(-3) and -(1/2)(-4).
    loss = nash_md_loss(policy, reference, centred, 0.5)
    assert loss.tolist() == [-0.75, 2.0]
    # No gradient flows through the parentheses: the gradient is minus their value.
    found = gradient(lambda x: nash_md_loss(x, reference, centred, 0.5), policy)
    assert found.tolist() == [0.25, -0.5]


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_mean_gradient_of_nash_md_is_that_of_preference_minus_kl(beta):
    """It sums over all 5^2 pairs of words of policy and mixture, weighted by their probability."""
    words, worth = range(5), torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    logits = torch.tensor([0.9, -0.3, 0.1, -1.2, 0.6], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.0, 0.4, 0.3, -0.1, 0.8], dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    opponent = (0.75 * logp.detach() + 0.25 * reference).softmax(-1)
    prefers = preference_probability(worth[:, None], worth[None, :], "sigmoid")
    mean = torch.zeros((), dtype=torch.float64)
    for own, other in itertools.product(words, repeat=2):
        loss = nash_md_loss(logp[own], reference[own], prefers[own, other] - 0.5, beta)
        mean = mean + logp[own].detach().exp() * opponent[other] * loss
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    objective = logp.exp() @ (prefers @ opponent - beta * (logp - reference))
    (exact,) = torch.autograd.grad(-objective, logits)
    assert torch.allclose(found, exact, atol=1e-12)
    assert exact.abs().max() > 0.01

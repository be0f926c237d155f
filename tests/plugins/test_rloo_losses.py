"""RLOO against NumPy, and its expected gradient over a whole vocabulary against the exact one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from on_policy_fakes import make_batch, policy_logprobs

from alignzoo.functional import kl_estimate
from alignzoo_zoo.rloo.losses import leave_one_out, rloo_loss

NAN = float("nan")


def test_leave_one_out_by_hand():
    # 1, 0, 5 minus the mean of the two others: 2.5, 3 and 0.5. Ties are 0. 2, 4 minus each other.
    rewards = [[1.0, 0.0, 5.0], [3.0, 3.0, 3.0], [2.0, NAN, 4.0], [7.0, NAN, NAN], [NAN] * 3]
    assert leave_one_out(torch.tensor(rewards)).tolist() == [
        [-1.5, -3.0, 4.5],
        [0.0, 0.0, 0.0],
        [-2.0, 0.0, 2.0],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
    ]


def reference_loss(d: np.ndarray, advantages: list[float], mask: np.ndarray, by_token: bool):
    total = 0.0
    for row, a, counts in zip(d, advantages, mask, strict=True):
        parts = row[counts] if by_token else [row[counts].sum()]
        total += sum(
            -min(r * a, min(max(r, 0.8), 1.2) * a) for r in (math.exp(part) for part in parts)
        )
    return total


@pytest.mark.parametrize("by_token", [False, True])
def test_the_loss_and_its_gradient(by_token):
    batch = make_batch()
    mask = batch.mask.numpy()
    log_ratio = (policy_logprobs(batch, 0.2) - batch["logprobs"]).detach().requires_grad_()
    loss = rloo_loss(log_ratio, batch["advantages"], batch.mask, 0.2, by_token)
    assert loss.shape == (6,)
    loss.sum().backward()
    at, step, advantages = log_ratio.detach().numpy(), 1e-6, batch["advantages"].tolist()
    expected = reference_loss(at, advantages, mask, by_token)
    assert loss.sum().item() == pytest.approx(expected, rel=1e-9)
    for place in np.ndindex(*at.shape):
        shift = np.zeros_like(at)
        shift[place] = step
        up = reference_loss(at + shift, advantages, mask, by_token)
        down = reference_loss(at - shift, advantages, mask, by_token)
        assert log_ratio.grad[place].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)
    assert not log_ratio.grad[0, 2].item()  # the token that does not count


@pytest.mark.parametrize("by_token", [False, True])
def test_extreme_ratios_give_no_nan(by_token):
    batch = make_batch()
    log_ratio = (policy_logprobs(batch, 3000.0) - batch["logprobs"]).detach().requires_grad_()
    loss = rloo_loss(log_ratio, batch["advantages"], batch.mask, 0.2, by_token)
    loss.sum().backward()
    assert loss.isfinite().all() and log_ratio.grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_expected_gradient_is_that_of_reward_minus_kl(beta):
    """It sums over all 5^2 groups of two one-word completions, weighted by their probability."""
    words, worth = torch.arange(5), torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    logits = torch.tensor([0.9, -0.3, 0.1, -1.2, 0.6], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.0, 0.4, 0.3, -0.1, 0.8], dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    old, mask = logp.detach(), torch.ones(2, 1, dtype=torch.bool)
    mean = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(words.tolist(), repeat=2):
        drawn = torch.tensor(pair)
        rewards = worth[drawn] - beta * kl_estimate(old[drawn], reference[drawn], "k1")
        advantages = leave_one_out(rewards[None])[0]
        log_ratio = (logp - old)[drawn][:, None]
        loss = rloo_loss(log_ratio, advantages, mask, 0.2, False).mean()
        mean = mean + old[drawn].sum().exp() * loss
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    objective = (logp.exp() * (worth - beta * (logp - reference))).sum()
    (exact,) = torch.autograd.grad(-objective, logits)
    assert torch.allclose(found, exact, atol=1e-12)
    assert exact.abs().max() > 0.1

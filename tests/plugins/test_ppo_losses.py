"""PPO's advantages and losses by hand, and its gradient against the exact one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from alignzoo.errors import BadInput
from alignzoo.functional import clipped_surrogate, importance_ratio, kl_estimate
from alignzoo_zoo.ppo.advantages import adapted_beta, generalized_advantages, token_rewards
from alignzoo_zoo.ppo.algorithm import PPO
from alignzoo_zoo.ppo.losses import clipped_value_loss


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_score_is_at_the_last_token_and_the_kl_penalty_at_each():
    kl = torch.tensor([[0.2, -0.4, 1.0], [0.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = token_rewards(torch.tensor([2.0, -1.0]), kl, 0.5, mask)
    # -0.5 * (0.2, -0.4, 1.0) with 2 at the third token; -0.5 * 0.5 - 1 at the only one.
    close(found, [[-0.1, 0.2, 1.5], [-1.25, 0.0, 0.0]])


def test_advantages_by_hand():
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.5, 2.0, 9.0]])
    values = torch.tensor([[0.5, 0.6, 0.7], [1.0, 0.4, 7.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    advantages, returns = generalized_advantages(rewards, values, mask, 0.9, 0.5)
    # First row, delta: 1 - 0.7 = 0.3; 0.9 * 0.7 - 0.6 = 0.03; 0.9 * 0.6 - 0.5 = 0.04.
    # A: 0.3; 0.03 + 0.45 * 0.3 = 0.165; 0.04 + 0.45 * 0.165 = 0.11425.
    # Second row, which ends after two: 2 - 0.4 = 1.6; 0.5 + 0.9 * 0.4 - 1 = -0.14;
    # A: 1.6; -0.14 + 0.45 * 1.6 = 0.58. Values past its end are ignored.
    close(advantages, [[0.11425, 0.165, 0.3], [0.58, 1.6, 0.0]])
    close(returns, [[0.61425, 0.765, 1.0], [1.58, 2.0, 0.0]])


def test_credit_passes_over_tokens_that_the_policy_did_not_write():
    own = torch.tensor([[True, False, True, False]])
    rewards = token_rewards(torch.tensor([1.0]), torch.full((1, 4), 7.0), 0.1, own)
    close(rewards, [[-0.7, 0.0, 0.3, 0.0]])  # the score is at the last token of the policy
    values = torch.tensor([[0.5, 9.0, 0.7, 9.0]])
    advantages, returns = generalized_advantages(rewards, values, own, 0.9, 0.5)
    # delta: 0.3 - 0.7 = -0.4; -0.7 + 0.9 * 0.7 - 0.5 = -0.57. A: -0.4; -0.57 - 0.45 * 0.4.
    close(advantages, [[-0.75, 0.0, -0.4, 0.0]])
    close(returns, [[-0.25, 0.0, 0.3, 0.0]])


def test_lambda_0_is_one_step_and_lambda_1_the_whole_return():
    rewards = torch.tensor([[0.1, 0.2, 0.3]])
    values = torch.tensor([[0.5, -1.0, 2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    close(generalized_advantages(rewards, values, mask, 1.0, 1.0)[1], [[0.6, 0.5, 0.3]])
    # r + V' - V: 0.1 - 1 - 0.5; 0.2 + 2 + 1; 0.3 - 2.
    close(generalized_advantages(rewards, values, mask, 1.0, 0.0)[0], [[-1.4, 3.2, -1.7]])


def test_the_coefficient_adapts_to_the_target():
    # Twice the target: the error is clipped to 0.2. A twentieth below: 1 - 0.05 * 100 / 1000.
    assert adapted_beta(0.1, 12.0, 6.0, 100, 1000) == pytest.approx(0.1 * 1.02)
    assert adapted_beta(0.1, 5.7, 6.0, 100, 1000) == pytest.approx(0.1 * 0.995)
    assert adapted_beta(0.1, -3.0, 6.0, 100, 1000) == pytest.approx(0.1 * 0.98)
    assert adapted_beta(0.1, 6.0, 6.0, 100, 1000) == 0.1


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient", "clipped"),
    [
        (1.1, 1.0, 3.0, 1.9**2 / 2, -1.9, False),  # within 0.2 of the old value
        (
            1.5,
            1.0,
            3.0,
            1.8**2 / 2,
            0.0,
            True,
        ),  # towards the return: clipped to 1.2
        (0.5, 1.0, 3.0, 2.5**2 / 2, -2.5, False),  # moved the wrong way: has a gradient
        (
            1.5,
            1.0,
            1.4,
            0.2**2 / 2,
            0.0,
            True,
        ),  # past the return: 1.2 is farther from it
        (2.0, 1.0, 1.1, 0.9**2 / 2, 0.9, False),  # far past it: has a gradient
    ],
)
def test_values_are_clipped(value, old, target, loss, gradient, clipped):
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    old_values, returns = (torch.tensor([x], dtype=torch.float64) for x in (old, target))
    found, clips = clipped_value_loss(values, old_values, returns, 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(gradient)
    assert clips.item() is clipped


def test_the_gradient_is_that_of_the_score_minus_the_kl():
    """It is summed over all completions of two tokens from three words, with any critic."""
    draw = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    first, second = random(3).requires_grad_(), random(3, 3).requires_grad_()
    base_first, base_second = random(3).log_softmax(-1), random(3, 3).log_softmax(-1)
    scores, beta = random(3, 3), 0.3
    state_values = torch.cat([random(1), random(3)])  # of the empty completion and of each word

    p1, p2 = first.log_softmax(-1), second.log_softmax(-1)
    joint = (p1[:, None] + p2).exp()
    kl = (joint * (p1[:, None] + p2 - base_first[:, None] - base_second)).sum()
    expected = torch.autograd.grad((joint * scores).sum() - beta * kl, [first, second])

    pairs = list(itertools.product(range(3), range(3)))
    p1, p2 = first.log_softmax(-1), second.log_softmax(-1)
    logprobs = torch.stack([torch.stack([p1[a], p2[a, b]]) for a, b in pairs])
    old = logprobs.detach()
    base = torch.stack([torch.stack([base_first[a], base_second[a, b]]) for a, b in pairs])
    values = torch.stack([torch.stack([state_values[0], state_values[1 + a]]) for a, _ in pairs])
    mask = torch.ones(9, 2, dtype=torch.bool)
    rewards = token_rewards(scores.flatten(), kl_estimate(old, base, "k1"), beta, mask)
    advantages, _ = generalized_advantages(rewards, values, mask, 1.0, 1.0)
    loss = clipped_surrogate(importance_ratio(logprobs - old), advantages, 0.8, 1.2)
    weighted = (old.sum(-1).exp() * loss.sum(-1)).sum()
    for found, wanted in zip(
        torch.autograd.grad(-weighted, [first, second]), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_a_coefficient_of_zero_cannot_adapt():
    with pytest.raises(BadInput, match="--kl-target"):
        PPO(beta=0.0, kl_target=6.0)

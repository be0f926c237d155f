"""SPPO's loss and win rates, as pure functions on tensors.

B prompts, G completions of each, N = B G. The win rate of a completion is the probability that it
is preferred to another completion of its prompt, in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def sppo_loss(log_ratio: Tensor, win_rate: Tensor, eta: float) -> Tensor:
    """Compute SPPO's squared error of each completion, `[N]`.

        L = (log pi(y|x) - log pi_t(y|x) - eta (P(y > pi_t | x) - 1/2))^2

    Algorithm 1 of Wu et al. 2024, https://arxiv.org/abs/2405.00675: a step of multiplicative
    weights, pi_t+1 ~ pi_t exp(eta P), whose normalising constant is approximated by exp(eta / 2).

    Args:
        log_ratio: log pi / pi_t, summed over tokens, in nats, `[N]`.
        win_rate: P(y > pi_t | x), `[N]`.
        eta: the step size, in nats.
    """
    return (log_ratio - eta * (win_rate - 0.5)) ** 2


def bradley_terry_win_rates(rewards: Tensor, scale: float) -> Tensor:
    """Average P(y > y') = sigmoid(scale (r - r')) over the other completions y', `[B, G]`.

    This is the Bradley-Terry model. NaN if the completion has no reward, or none of the others has.

    Args:
        rewards: `[B, G]`, in units of 1 / scale; NaN if none applies.
    """
    table = torch.sigmoid(scale * (rewards[..., :, None] - rewards[..., None, :]))
    own = torch.eye(rewards.shape[-1], dtype=torch.bool, device=rewards.device)
    return table.masked_fill(own, torch.nan).nanmean(-1)

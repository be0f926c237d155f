"""The losses of self-play, as pure functions on tensors; those of pairs are `alignzoo.preference`.

B prompts, G completions of each, N = B G. A win rate is how often a completion is preferred to the
others of its prompt, in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def sppo_loss(log_ratio: Tensor, win_rate: Tensor, eta: float) -> Tensor:
    """SPPO: a square for each completion, whatever became of the others.

        L = (log pi(y|x) - log pi_t(y|x) - eta (P(y > pi_t | x) - 1/2))^2

    Algorithm 1 of Wu et al. 2024, https://arxiv.org/abs/2405.00675: a step of multiplicative
    weights, pi_t+1 ~ pi_t exp(eta P), whose normalising constant is taken for exp(eta / 2).

    Args:
        log_ratio: log pi / pi_t, summed over tokens, in nats, `[N]`; one loss for each.
        win_rate: P(y > pi_t | x), `[N]`.
        eta: the step, in nats.
    """
    return (log_ratio - eta * (win_rate - 0.5)) ** 2


def bradley_terry_win_rates(rewards: Tensor, scale: float) -> Tensor:
    """The mean over the others of sigmoid(scale (r - r')), Bradley and Terry's P(y > y'), `[B, G]`.

    NaN where a completion has no reward, or none of the others has one.

    Args:
        rewards: `[B, G]`, in 1 / scale; NaN where none applies, which is nobody to win against.
    """
    table = torch.sigmoid(scale * (rewards[..., :, None] - rewards[..., None, :]))
    oneself = torch.eye(rewards.shape[-1], dtype=torch.bool, device=rewards.device)
    return table.masked_fill(oneself, torch.nan).nanmean(-1)

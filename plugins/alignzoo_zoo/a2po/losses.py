"""The optimal value of a prompt, and the loss that regresses on it, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def optimal_values(rewards: Tensor, beta: float) -> Tensor:
    """Estimate the optimal value of each prompt, under a KL penalty to the reference.

        V*(x) = beta ln E[exp(r(x, y) / beta)],    y ~ pi_ref

    by the mean over n completions of the reference: the mean reward for a large beta, the best
    one for a small one. Brantley et al. 2025, https://arxiv.org/abs/2505.20686.

    Args:
        rewards: of n completions of each prompt, NaN if none applies; `[B, n]`.
        beta: > 0, in reward per nat.

    Returns:
        V*, in the unit of the reward, `[B]`; NaN for a prompt without a reward.
    """
    known = ~rewards.isnan()
    scaled = torch.where(known, rewards / beta, -torch.inf)
    values = beta * (scaled.logsumexp(1) - known.sum(1).log())
    return values.masked_fill(~known.any(1), torch.nan)


def regression_loss(log_ratio: Tensor, advantages: Tensor, beta: float) -> Tensor:
    """Compute A*-PO's loss, which is 0 for the optimal policy of the KL-regularised reward.

        L = (beta log(pi(y|x) / pi_ref(y|x)) - (r(x, y) - V*(x)))^2

    Brantley et al. 2025, https://arxiv.org/abs/2505.20686.

    Args:
        log_ratio: log pi - log pi_ref, summed over tokens, in nats; `[N]`.
        advantages: r - V*, in the unit of the reward; `[N]`.
        beta: > 0, in reward per nat.

    Returns:
        One loss per completion, `[N]`.
    """
    return (beta * log_ratio - advantages) ** 2

"""REINFORCE and REINFORCE++, as pure functions on tensors.

N completions of up to T tokens; log-probs and KL in nats. A reward that does not apply is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reinforce_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Compute REINFORCE's loss of each completion, `[N]`.

        L = -(the sum over t of A log pi(y_t|x, y_<t))

    Its gradient is an unbiased estimate of that of -E[reward] for any A = R - b whose baseline b
    does not depend on y. Williams 1992, https://doi.org/10.1007/BF00992696.

    Args:
        logprobs: log pi(y_t|x, y_<t), `[N, T]`.
        advantages: A, in units of reward, one per completion `[N, 1]`, or per token `[N, T]`.
        mask: the tokens in the loss, bool, `[N, T]`.
    """
    return -torch.where(mask, advantages * logprobs, 0.0).sum(-1)


def update_average(average: float | None, rewards: Tensor, decay: float) -> float | None:
    """Update an exponential moving average by a round: b' = decay b + (1 - decay) mean(R).

    It starts as the mean of the first round. A round without any reward leaves it unchanged.
    """
    mean = float(rewards.nanmean())
    if mean != mean:
        return average
    return mean if average is None else decay * average + (1 - decay) * mean


def rewards_to_go(rewards: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Compute the undiscounted return from each token on, `[N, T]`.

        G_t = r - beta * the sum over i >= t of KL(i),    KL(i) = log pi_old(y_i) - log pi_ref(y_i)

    The reward r `[N]` is given at the last token, the KL penalty `[N, T]` at each token.
    REINFORCE++, Hu et al. 2025, https://arxiv.org/abs/2501.03262.
    """
    paid = torch.where(mask, kl, 0.0)
    return rewards[:, None] - beta * paid.flip(-1).cumsum(-1).flip(-1)


def subtract_group_mean(rewards: Tensor) -> Tensor:
    """Subtract the group's mean from each reward, `[B, G] -> [B, G]`; a group of one gives 0."""
    return rewards - rewards.nanmean(-1, keepdim=True)


def length_weighted_mean(rewards: Tensor, lengths: Tensor) -> Tensor:
    """Compute the mean reward of each group, weighted by the lengths of completions, `[B, 1]`.

        b = (sum over i of |y_i| r_i) / (sum over i of |y_i|)

    The baseline of least variance is the mean weighted by ||grad log pi(y)||^2, which is about
    proportional to |y|. OPO, Hao et al. 2025, https://arxiv.org/abs/2505.23585.

    Args:
        rewards: `[B, G]`; a completion without one (NaN) is left out.
        lengths: |y|, tokens that the policy wrote, `[B, G]`.
    """
    counted = lengths.masked_fill(rewards.isnan(), 0).to(rewards.dtype)
    total = (counted * rewards.nan_to_num(0.0)).sum(-1, keepdim=True)
    return total / counted.sum(-1, keepdim=True).clamp(min=1)

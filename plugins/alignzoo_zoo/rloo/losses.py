"""REINFORCE leave-one-out, as pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.functional import clipped_surrogate, importance_ratio, per_token


def leave_one_out(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean reward of the other completions of its prompt.

        A_i = R_i - (1 / (G - 1)) sum over j != i of R_j

    Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740, after Kool et al. 2019.

    Args:
        rewards: `[B, G]`, in any unit; NaN if none applies; it is left out of the means.

    Returns:
        Advantages `[B, G]`; 0 for a completion without a reward, or without another in its group.
    """
    others = (~rewards.isnan()).sum(-1, keepdim=True) - 1
    baseline = (rewards.nansum(-1, keepdim=True) - rewards) / others
    return torch.where(others > 0, rewards - baseline, 0.0).nan_to_num(0.0)


def rloo_loss(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, epsilon: float, by_token: bool
) -> Tensor:
    """Compute REINFORCE with advantages, clipped as in PPO, one loss per completion, `[N]`.

        L = -min(r A, clip(r, 1 - eps, 1 + eps) A),    r = pi(y|x) / pi_old(y|x)
        L = the sum over t of the same with r_t = pi(y_t|x, y_<t) / pi_old(y_t|x, y_<t)

    The second is that of `by_token`. At r = 1, at the start of a round, both have the gradient of
    REINFORCE, -A grad log pi(y|x), as in Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740.
    The clip, Schulman et al. 2017, https://arxiv.org/abs/1707.06347, is for the later passes.

    Args:
        log_ratio: log pi - log pi_old of each token, in nats, `[N, T]`.
        advantages: A, `[N]`; `by_token` also one for each token, `[N, T]`.
        mask: the tokens in the loss, bool, `[N, T]`.
    """
    counted = torch.where(mask, log_ratio, 0.0)
    if not by_token:
        ratio = importance_ratio(counted.sum(-1))
        return clipped_surrogate(ratio, advantages, 1 - epsilon, 1 + epsilon)
    ratio = importance_ratio(counted)
    losses = clipped_surrogate(ratio, per_token(advantages), 1 - epsilon, 1 + epsilon)
    return torch.where(mask, losses, 0.0).sum(-1)

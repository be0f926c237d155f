"""The choice of the completions to train on, as pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def best_of_each(rewards: Tensor) -> Tensor:
    """Mark the completion with the highest reward of each group; of ties, the first.

    Algorithm 1 of Dong et al. 2023, https://arxiv.org/abs/2304.06767.

    Args:
        rewards: `[B, G]`, in any unit; NaN if none applies.

    Returns:
        Bool, `[B, G]`: one of each group, none of a group without a reward.
    """
    ranked = rewards.nan_to_num(nan=-torch.inf)
    first = torch.zeros_like(rewards, dtype=torch.bool)
    first.scatter_(1, ranked.argmax(1, keepdim=True), True)
    return first & ~rewards.isnan()


def at_least(rewards: Tensor, threshold: float) -> Tensor:
    """Mark the completions whose reward is at least the threshold, bool, in the shape of `rewards`.

    The filter of Gulcehre et al. 2023 (ReST), https://arxiv.org/abs/2308.08998. NaN is not kept.
    """
    return rewards >= threshold

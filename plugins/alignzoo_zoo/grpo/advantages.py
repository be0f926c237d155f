"""Advantages of completions relative to their group, as pure functions on tensors.

`rewards` is `[B, G, K]`: B prompts, G completions of each, K rewards; NaN if one does not apply.
There is one advantage per completion, `[B, G]`; 0 if no reward applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from alignzoo.functional import nanstd

Scale = Literal["group", "batch", "none"]
STD_EPSILON = 1e-4  # added to each divisor, so that a group of ties stays at 0


def group_advantages(rewards: Tensor, scale: Scale) -> Tensor:
    """Compute the reward minus the mean of its group, divided by a standard deviation, `[B, G]`.

        A_i = (r_i - mean(r_1 .. r_G)) / (std + 1e-4)

    The standard deviation (n - 1 in its denominator) is that of the group: Shao et al. 2024,
    https://arxiv.org/abs/2402.03300, section 4.1.2; that of all rewards of the round: Liu et al.
    2025, https://arxiv.org/abs/2508.08221; or is left out: Liu et al. 2025 (Dr. GRPO),
    https://arxiv.org/abs/2503.20783.

    Args:
        rewards: the sum of all rewards, `[B, G, 1]`.
    """
    summed = rewards.squeeze(-1)
    centred = summed - summed.nanmean(-1, keepdim=True)
    if scale == "group":
        centred = centred / (nanstd(summed)[:, None] + STD_EPSILON)
    elif scale == "batch":
        centred = centred / (nanstd(summed.flatten()) + STD_EPSILON)
    return centred.nan_to_num(0.0)


def decoupled_advantages(rewards: Tensor, weights: Sequence[float]) -> Tensor:
    """Compute GDPO's advantages: scale each reward in its group, then their sum over the round.

        s_i = sum over k of w_k (r_ik - mean_k) / (std_k + 1e-4)
        A_i = (s_i - mean(s)) / (std(s) + 1e-4)

    A reward with a small variance then counts as much as one with a large variance, apart from the
    `weights` w, `[K]`. Liu et al. 2026, https://arxiv.org/abs/2601.05242.
    """
    each = rewards.transpose(1, 2)  # (B, K, G)
    scaled = (each - each.nanmean(-1, keepdim=True)) / (nanstd(each)[..., None] + STD_EPSILON)
    scaled = scaled * torch.tensor(weights)[:, None]
    total = scaled.nansum(1).masked_fill(rewards.isnan().all(-1), float("nan"))
    centred = total - total.nanmean()
    return (centred / (nanstd(total.flatten()) + STD_EPSILON)).nan_to_num(0.0)

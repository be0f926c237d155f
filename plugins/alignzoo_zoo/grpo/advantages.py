"""How good a completion is beside the others of its group.

Everywhere `rewards` is `[B, G, K]`: B prompts, G completions of each, K rewards, NaN where one
does not apply. An advantage is one number per completion, `[B, G]`; 0 where no reward applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from alignzoo.functional import nanstd

Scale = Literal["group", "batch", "none"]
SMALLEST_SPREAD = 1e-4  # added to what is divided by, so that a group of ties stays at 0


def group_advantages(rewards: Tensor, scale: Scale) -> Tensor:
    """The reward less the mean of its group, over a standard deviation.

        A_i = (r_i - mean(r_1 .. r_G)) / (std + 1e-4)

    with the standard deviation (n - 1 in its denominator) of the group: Shao et al. 2024,
    https://arxiv.org/abs/2402.03300, section 4.1.2; of all rewards of the round: Liu et al. 2025,
    https://arxiv.org/abs/2508.08221; or without any: Liu et al. 2025 (Dr. GRPO),
    https://arxiv.org/abs/2503.20783.

    Args:
        rewards: the sum of all rewards, `[B, G, 1]`.
    """
    summed = rewards.squeeze(-1)
    centred = summed - summed.nanmean(-1, keepdim=True)
    if scale == "group":
        centred = centred / (nanstd(summed)[:, None] + SMALLEST_SPREAD)
    elif scale == "batch":
        centred = centred / (nanstd(summed.flatten()) + SMALLEST_SPREAD)
    return centred.nan_to_num(0.0)


def decoupled_advantages(rewards: Tensor, weights: Sequence[float]) -> Tensor:
    """GDPO: each reward is scaled within its group by itself, and the sum over the whole round.

        s_i = sum over k of w_k (r_ik - mean_k) / (std_k + 1e-4)
        A_i = (s_i - mean(s)) / (std(s) + 1e-4)

    So a reward that varies little counts as much as one that varies more, but for the `weights`
    w `[K]`. Liu et al. 2026,
    https://arxiv.org/abs/2601.05242.
    """
    each = rewards.transpose(1, 2)
    scaled = (each - each.nanmean(-1, keepdim=True)) / (nanstd(each)[..., None] + SMALLEST_SPREAD)
    scaled = scaled * torch.tensor(weights)[:, None]
    total = scaled.nansum(1).masked_fill(rewards.isnan().all(-1), float("nan"))
    centred = total - total.nanmean()
    return (centred / (nanstd(total.flatten()) + SMALLEST_SPREAD)).nan_to_num(0.0)

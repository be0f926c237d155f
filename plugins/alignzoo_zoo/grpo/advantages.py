"""Advantages of completions relative to their group, as pure functions on tensors.

`rewards` is `[B, G, K]`: B prompts, G completions of each, K rewards; NaN if one does not apply.
There is one advantage per completion, `[B, G]`; 0 if no reward applies.
"""

from __future__ import annotations

import math
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
    return divide_by_std(summed - summed.nanmean(-1, keepdim=True), summed, scale).nan_to_num(0.0)


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


def pass_at_k_advantages(rewards: Tensor, k: int, scale: Scale) -> Tensor:
    """Compute what a completion adds to the best reward of k, over all choices of k, `[B, G]`.

        A_i = mean over all S of k - 1 other completions of (max of r over S and i) - (max over S)
            = sum over j with r_j < r_i of (r_i - r_j) C(#{before j}, k - 2) / C(G - 1, k - 1)

    #{before j} counts the completions before j in ascending order of reward; C is the binomial
    coefficient. For rewards of 0 and 1, a right completion has the probability that k - 1 others
    are all wrong. The mean of A grad log pi is an unbiased estimate of 1/k of the gradient of the
    expected best of k (pass@k). For k = G it is the leave-one-out advantage of Tang et al. 2025,
    https://arxiv.org/abs/2503.19595; the mean over subsets is from Walder and Karkhanis 2025,
    https://arxiv.org/abs/2505.15201.

    It is divided by a standard deviation of the rewards as in `group_advantages`. A completion
    without a reward (NaN) is left out; a group of fewer than k rewards has advantages of 0.

    Args:
        rewards: the sum of all rewards, `[B, G, 1]`.
        k: 2 or more.
    """
    summed = rewards.squeeze(-1)
    advantages = torch.zeros_like(summed)
    for group, found in zip(summed, advantages, strict=True):
        known = torch.nonzero(~group.isnan()).flatten()  # (n,)
        if len(known) < k:
            continue
        ascending, order = group[known].sort(stable=True)
        subsets = math.comb(len(known) - 1, k - 1)
        shares = [math.comb(before, k - 2) / subsets for before in range(len(known))]
        gaps = (ascending[:, None] - ascending[None, :]).tril()  # (n, n): r_i - r_j, j before i
        found[known[order]] = gaps @ torch.tensor(shares, dtype=gaps.dtype)
    return divide_by_std(advantages, summed, scale)


def divide_by_std(advantages: Tensor, rewards: Tensor, scale: Scale) -> Tensor:
    """Divide advantages by the deviation of the rewards of their group or of all, `[B, G]` each."""
    if scale == "none":
        return advantages
    std = nanstd(rewards)[:, None] if scale == "group" else nanstd(rewards.flatten())
    return advantages / (std + STD_EPSILON)

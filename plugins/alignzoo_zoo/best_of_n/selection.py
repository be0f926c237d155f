"""Best-of-n, as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best(rewards: Tensor) -> Tensor:
    """The place of the highest reward of each group, the first of those that tie.

    Args:
        rewards: `[B, N]`, in any unit; NaN where none applies, which is never the best.

    Returns:
        `[B]`; 0 for a group without a reward.
    """
    return rewards.nan_to_num(nan=-torch.inf, neginf=-torch.finfo(rewards.dtype).max).argmax(1)


def kl_bound(n: int) -> float:
    """The most that the best of n can be from the model it is drawn from: KL in nats.

        KL(best of n || pi) <= log n - (n - 1) / n

    Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix G.3, has it as an equality. It
    is one where no two completions tie and none is likely to be drawn twice; else it is an upper
    bound, and may be a loose one: Beirami et al. 2024, https://arxiv.org/abs/2401.01879.
    """
    return math.log(n) - (n - 1) / n

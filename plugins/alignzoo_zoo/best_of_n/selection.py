"""Selection of the best completion, and its KL, as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best_index(rewards: Tensor) -> Tensor:
    """Return the index of the highest reward of each group; of ties, the first.

    Args:
        rewards: `[B, N]`, in any unit; NaN if none applies; it is never the best.

    Returns:
        `[B]`; 0 for a group without a reward.
    """
    return rewards.nan_to_num(nan=-torch.inf, neginf=-torch.finfo(rewards.dtype).max).argmax(1)


def kl_bound(n: int) -> float:
    """Compute an upper bound of the KL between the best of n and the model, in nats.

        KL(best of n || pi) <= log n - (n - 1) / n

    Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix G.3, give it as an equality,
    which holds if no two completions tie and none is likely to be sampled twice. Otherwise it is an
    upper bound, possibly a loose one: Beirami et al. 2024, https://arxiv.org/abs/2401.01879.
    """
    return math.log(n) - (n - 1) / n

"""The critic's loss as a pure function; the policy's is `alignzoo.functional.clipped_surrogate`."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Compute the clipped squared error of the critic, and mark where the clipped one is larger.

        L = max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / 2

    A value that moved further than eps from V_old has no gradient, unless it moved away from R.
    From the code of Schulman et al. 2016; Huang et al. 2023, policy training, 9.

    Args:
        values: V, with gradient; `old_values` and `returns` have its shape, which is returned.
        epsilon: eps, in the unit of the reward.
    """
    clipped = torch.clamp(values, old_values - epsilon, old_values + epsilon)
    error, clipped_error = (values - returns) ** 2, (clipped - returns) ** 2
    return torch.maximum(error, clipped_error) / 2, clipped_error > error

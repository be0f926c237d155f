"""The critic's loss, as a pure function on tensors; the policy's is `clipped_surrogate`."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The critic's squared error, the worse of two, and where the clip makes it so.

        L = max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / 2

    So that a value that has gone further than eps from where it was has no gradient, but where it
    went the wrong way. Schulman et al. 2016's code; Huang et al. 2023, policy training, 9.

    Args:
        values: V, with gradient, any shape; `old_values` and `returns` of the same.
        epsilon: in the unit of the reward.
    """
    clipped = torch.clamp(values, old_values - epsilon, old_values + epsilon)
    free, held = (values - returns) ** 2, (clipped - returns) ** 2
    return torch.maximum(free, held) / 2, held > free

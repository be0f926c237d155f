"""What a loss hook returns: a sum and a count, never a mean.

Means of micro-batches do not add up to the mean of the batch; sums and counts do. The loop
divides once, by the count of the whole optimizer step over all micro-batches and processes, so
that 1x8, 8x1 and 3+5 are the same update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Metric = tuple[Tensor, Tensor]  # (sum, count), both scalars


@dataclass
class Loss:
    """A differentiable `sum`, the `count` it is to be divided by, and metrics as (sum, count)."""

    sum: Tensor
    count: Tensor
    metrics: dict[str, Metric] = field(default_factory=dict)

    @classmethod
    def per_sequence(cls, values: Tensor, metrics: Mapping[str, Tensor] | None = None) -> Loss:
        """One loss value per sequence, pair or group: the count is how many there are.

        Each metric is a tensor of any shape; it is logged as the mean over its elements.
        """
        count = torch.tensor(values.numel(), device=values.device)
        return cls(values.sum(), count, _means(metrics))

    @classmethod
    def per_token(
        cls, values: Tensor, mask: Tensor, metrics: Mapping[str, Tensor] | None = None
    ) -> Loss:
        """One loss value per token, `[N, T]`; the count is the number of tokens in `mask`.

        A metric of the mask's shape is averaged over the tokens in it, any other over its elements.
        """
        if values.shape != mask.shape:
            raise ValueError(f"values {tuple(values.shape)} and mask {tuple(mask.shape)} differ")
        total = torch.where(mask, values, 0.0).sum()
        return cls(total, mask.sum(), _means(metrics, mask))

    @property
    def mean(self) -> float:
        return float(self.sum.detach()) / max(float(self.count), 1.0)


def _means(metrics: Mapping[str, Tensor] | None, mask: Tensor | None = None) -> dict[str, Metric]:
    out: dict[str, Metric] = {}
    for name, value in (metrics or {}).items():
        value = value.detach().float()
        if mask is not None and value.shape == mask.shape:
            out[name] = (torch.where(mask, value, 0.0).sum(), mask.sum())
        else:
            out[name] = (value.sum(), torch.tensor(value.numel(), device=value.device))
    return out

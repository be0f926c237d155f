"""The return value of a loss hook: a sum and a count, never a mean.

Means of micro-batches do not add up to the mean of the batch; sums and counts do. The loop
divides once, by the count of the whole optimizer step over all micro-batches and processes, so
that 1x8, 8x1 and 3+5 are the same update.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Metric = tuple[Tensor, Tensor]  # (sum, count), both scalars


@dataclass
class Loss:
    """A differentiable `sum`, the `count` to divide it by, and metrics as (sum, count)."""

    sum: Tensor
    count: Tensor
    metrics: dict[str, Metric] = field(default_factory=dict)

    @classmethod
    def per_sequence(cls, values: Tensor, metrics: Mapping[str, Tensor] | None = None) -> Loss:
        """Sum one loss value per sequence, pair or group, `[n]`; the count is n.

        Each metric is a tensor of any shape; it is logged as the mean over its elements. Raise
        `ValueError` if the values are not one-dimensional.
        """
        if values.dim() != 1:
            raise ValueError(f"one value per sequence is [n], not {list(values.shape)}")
        count = torch.tensor(values.numel(), device=values.device)
        return cls(values.sum(), count, _sums_and_counts(metrics))

    @classmethod
    def per_token(
        cls, values: Tensor, mask: Tensor, metrics: Mapping[str, Tensor] | None = None
    ) -> Loss:
        """Sum one loss value per token, `[N, T]`, over `mask [N, T]`; the count is its size.

        A metric of the mask's shape is averaged over the tokens in it, any other over its
        elements. Raise `ValueError` if the values are not `[N, T]` or the mask differs in shape.
        """
        if values.dim() != 2 or values.shape != mask.shape:
            raise ValueError(
                f"values and mask are both [N, T], not {list(values.shape)} and {list(mask.shape)}"
            )
        total = torch.where(mask, values, 0.0).sum()
        return cls(total, mask.sum(), _sums_and_counts(metrics, mask))

    @property
    def mean(self) -> float:
        """The sum divided by the count, or by 1 if nothing was counted."""
        return float(self.sum.detach()) / max(float(self.count), 1.0)


@dataclass
class Totals:
    """Sums and counts of losses and their metrics, added up over `n` groups.

    The loss itself goes by the name `loss`.
    """

    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    n: int = 0

    def add(self, loss: Loss, n: int = 0) -> None:
        """Add the loss of a micro-batch of `n` groups."""
        self.n += n
        for name, (total, count) in {"loss": (loss.sum, loss.count), **loss.metrics}.items():
            self.sums[name] += float(total.detach())
            self.counts[name] += float(count)

    def merge(self, parts: Sequence[Totals]) -> None:
        """Replace the totals by the sum of those of all processes."""
        sums, counts = [p.sums for p in parts], [p.counts for p in parts]
        for own, everywhere in ((self.sums, sums), (self.counts, counts)):
            names = dict.fromkeys(name for part in everywhere for name in part)
            own |= {name: sum(part.get(name, 0.0) for part in everywhere) for name in names}
        self.n = sum(p.n for p in parts)

    def means(self) -> dict[str, float]:
        """Return sum / count by name, without those that counted nothing."""
        return {name: self.sums[name] / n for name, n in self.counts.items() if n}


def _sums_and_counts(
    metrics: Mapping[str, Tensor] | None, mask: Tensor | None = None
) -> dict[str, Metric]:
    out: dict[str, Metric] = {}
    for name, value in (metrics or {}).items():
        value = value.detach().float()
        if mask is not None and value.shape == mask.shape:
            out[name] = (torch.where(mask, value, 0.0).sum(), mask.sum())
        else:
            out[name] = (value.sum(), torch.tensor(value.numel(), device=value.device))
    return out

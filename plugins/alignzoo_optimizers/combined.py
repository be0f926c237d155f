"""What the optimizers share: several of them as one, and what they cannot train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from alignzoo import BadInput


class Combined(torch.optim.Optimizer):
    """Several optimizers as one: the groups and the states of the whole are those of the parts."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step of each part."""
        assert closure is None, "the loss is computed before the step"
        for part in self.parts:
            part.step()


def refuse_sharded(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise `BadInput` for weights that are split over processes, of which a step sees a part."""
    if any(isinstance(p, DTensor) for group in groups for p in group["params"]):
        raise BadInput(
            "this optimizer needs whole matrices, and they are split over processes",
            hint="use --optimizer adamw",
        )

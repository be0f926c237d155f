"""Adafactor, by torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from alignzoo import Run, decay_groups, hookimpl


@dataclass
class Adafactor:
    """Adafactor: of a matrix it keeps squares by row and by column, and no mean of gradients"""

    smallest_scale: Annotated[
        float,
        "a step is the learning rate times the root mean square of the weights, or times this if "
        "that is smaller; 1e-3 in the paper, whose learning rates are larger",
        Gt(0),
        Le(1),
    ] = 1.0
    clip: Annotated[float, "largest root mean square of an update before it is scaled", Gt(0)] = 1.0
    decay: Annotated[
        float, "the mean of squares decays by 1 - t^-DECAY at step t", Ge(0), Le(1)
    ] = 0.8

    @hookimpl
    def alignzoo_optimizer(
        self, run: Run, parameters: Sequence[tuple[str, nn.Parameter]]
    ) -> torch.optim.Optimizer:
        """Return the optimizer, with the recipe's learning rate and weight decay."""
        return torch.optim.Adafactor(
            decay_groups(parameters, run.recipe.weight_decay),
            lr=run.learning_rate,
            beta2_decay=-self.decay,
            eps=(None, self.smallest_scale),
            d=self.clip,
        )

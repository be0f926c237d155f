"""What a run does if no plugin gives something else: optimizer, learning rate, order of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from alignzoo.discovery import hookimpl
from alignzoo.functional import learning_rate_factor
from alignzoo.run import Run
from alignzoo.training.optimizer import make_optimizer


class TrainingDefaults:
    """AdamW, the recipe's schedule of the learning rate, and epochs in a random order."""

    @hookimpl
    def alignzoo_optimizer(
        self, run: Run, parameters: Sequence[tuple[str, nn.Parameter]]
    ) -> torch.optim.Optimizer:
        """Return AdamW with the recipe's weight decay."""
        return make_optimizer(parameters, run.learning_rate, run.recipe.weight_decay)

    @hookimpl
    def alignzoo_learning_rate(self, run: Run, step: int) -> float:
        """Return the peak rate times the schedule, in the middle of the step."""
        progress = run.schedule.progress_at(step - 0.5)
        factor = learning_rate_factor(progress, run.recipe.warmup, run.recipe.schedule)
        return run.learning_rate * factor

    @hookimpl
    def alignzoo_order(self, run: Run, index: int) -> list[int]:
        """Return the next rows of the epochs."""
        return run.order.batch(index)

"""The learning rate over a run, and from one model to another."""

from __future__ import annotations

import math
from typing import Literal

REFERENCE_WIDTH = 2048


def learning_rate_factor(
    progress: float, warmup: float, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """The share of the peak learning rate at `progress` in [0, 1] of the run.

    Rises linearly over the first `warmup` of the run, then falls to 0 as a line or half a cosine,
    or stays. Written on progress instead of steps, so that a run that stops on a compute budget
    has the same schedule as one that stops on a number of steps.
    """
    if progress < warmup:
        return progress / warmup
    done = (progress - warmup) / max(1.0 - warmup, 1e-12)
    if schedule == "linear":
        return max(0.0, 1.0 - done)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return 1.0


def learning_rate_for_width(rate: float, width: int, adapter: bool) -> float:
    """A learning rate given for an adapter on a model 2048 wide, carried to another model.

    rate x (2048 / width)^0.78, and a tenth of that when all weights are trained. Both are the
    fits of Schulman et al. 2025, "LoRA Without Regret": the best rate of LoRA hardly depends on
    the rank, falls with this power of the hidden size (on Llama), and is ten times the best rate
    of full fine-tuning.
    """
    return rate * (REFERENCE_WIDTH / width) ** 0.78 * (1.0 if adapter else 0.1)

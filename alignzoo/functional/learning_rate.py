"""The learning rate: its schedule over a run, and its transfer to another model."""

from __future__ import annotations

import math
from typing import Literal

REFERENCE_WIDTH = 2048


def learning_rate_factor(
    progress: float, warmup: float, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """Return the fraction of the peak learning rate at `progress` in [0, 1] of the run.

    It rises linearly over the first `warmup` of the run, then falls to 0 as a line or half a
    cosine, or stays. It is a function of progress instead of steps, so that a run with a compute
    budget has the same schedule as one with a number of steps.
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
    """Convert a learning rate given for an adapter on a model 2048 wide to another model.

    rate x (2048 / width)^0.78, and a tenth of that if all weights are trained. Both are fits of
    Schulman et al. 2025, "LoRA Without Regret": the best rate of LoRA hardly depends on the rank,
    falls with this power of the hidden size (on Llama), and is ten times the best rate of full
    fine-tuning.
    """
    return rate * (REFERENCE_WIDTH / width) ** 0.78 * (1.0 if adapter else 0.1)

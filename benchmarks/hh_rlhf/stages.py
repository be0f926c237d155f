"""The stages of a fold in their order, each one a run of alignzoo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alignzoo.functional import learning_rate_for_width


@dataclass(frozen=True)
class Stage:
    """A run that starts from the result of the stage `start`, or from random weights if None."""

    name: str
    algorithm: str
    data: str  # a file that `fold.py` writes
    start: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    judges: bool = True  # its result judges the held-out pairs


STAGES = (
    # Small batches, so that one epoch has 231 steps instead of 58. It is also the imitation of
    # the chosen answers that DPO usually starts from.
    Stage(
        "pretrain",
        "pretrain",
        "chosen.jsonl",
        settings={"random_init": True, "adapter": "none", "batch_size": 8},
        judges=False,
    ),
    Stage("reward", "reward", "pairs.jsonl", "pretrain"),
    Stage(
        "dpo",
        "dpo",
        "pairs.jsonl",
        "pretrain",
        {
            "options": {"beta": 0.1},
            "learning_rate": learning_rate_for_width(1e-4, 128, adapter=True),
        },
    ),
)
COMMON = {"max_length": 128, "seed": 0, "eval_size": 0, "checkpoint_every": 20}

"""One training loop, every alignment algorithm a small plugin, all compared fairly.

Everything that a plugin may need is importable from here. Names are resolved when they are first
used, so that `import alignzoo`, and with it `alignzoo --help`, imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.algorithm import Needs, Rounds, algorithm_of
    from alignzoo.batch import Batch, Example, collate, concat
    from alignzoo.data import (
        Demonstrations,
        Dialogues,
        Feedback,
        Preferences,
        Prompts,
        Steps,
        Text,
        WholeDemonstrations,
    )
    from alignzoo.discovery import hookimpl
    from alignzoo.errors import BadInput, RunFailed
    from alignzoo.loss import Loss
    from alignzoo.rewards import RowReward
    from alignzoo.run.run import Run
    from alignzoo.training.on_policy import OnPolicy

_HOMES = {
    "Batch": "batch",
    "BadInput": "errors",
    "Demonstrations": "data",
    "Dialogues": "data",
    "Example": "batch",
    "Feedback": "data",
    "Loss": "loss",
    "Needs": "algorithm",
    "OnPolicy": "training.on_policy",
    "Preferences": "data",
    "Prompts": "data",
    "Rounds": "algorithm",
    "RowReward": "rewards",
    "Run": "run",
    "RunFailed": "errors",
    "Steps": "data",
    "Text": "data",
    "WholeDemonstrations": "data",
    "algorithm_of": "algorithm",
    "collate": "batch",
    "hookimpl": "discovery",
    "concat": "batch",
}

__all__ = [
    "BadInput",
    "Batch",
    "Demonstrations",
    "Dialogues",
    "Example",
    "Feedback",
    "Loss",
    "Needs",
    "OnPolicy",
    "Preferences",
    "Prompts",
    "Rounds",
    "RowReward",
    "Run",
    "RunFailed",
    "Steps",
    "Text",
    "WholeDemonstrations",
    "algorithm_of",
    "collate",
    "concat",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alignzoo' has no attribute {name!r}")
    return getattr(import_module(f"alignzoo.{_HOMES[name]}"), name)

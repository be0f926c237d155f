"""The trackers that a run also logs to, such as TensorBoard, by `--report-to`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator

from alignzoo.errors import BadInput, nearest
from alignzoo.recipe import Recipe

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def check_trackers(names: Sequence[str]) -> None:
    """Raise `BadInput` for a tracker that is unknown or not installed.

    accelerate would leave it out without a message.
    """
    for name in names:
        if name not in TRACKERS:
            raise BadInput(f"unknown tracker {name!r}", hint=nearest(name, TRACKERS))
        if find_spec(name) is None:
            raise BadInput(f"tracker {name!r} is not installed", hint=f"pip install {name}")


def start_trackers(accelerator: Accelerator, recipe: Recipe) -> None:
    """Start the trackers of a recipe, with its settings."""
    if recipe.report_to:
        accelerator.init_trackers("alignzoo", config=flatten_settings(recipe.as_dict()))


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Return settings as numbers and text, which every tracker accepts; others become JSON."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in settings.items()
    }

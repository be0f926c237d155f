"""Trackers beside our own files, through accelerate. None is on unless it was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from alignzoo.errors import BadInput, nearest

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def check_trackers(names: Sequence[str]) -> None:
    """accelerate leaves a tracker that is not installed out in silence; this says so instead."""
    for name in names:
        if name not in TRACKERS:
            raise BadInput(f"unknown tracker {name!r}", hint=nearest(name, TRACKERS))
        if find_spec(name) is None:
            raise BadInput(f"tracker {name!r} is not installed", hint=f"pip install {name}")


def settings_for_trackers(settings: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Settings as numbers and text, which is all that every tracker takes."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in settings.items()
    }

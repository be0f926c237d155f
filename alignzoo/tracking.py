"""Trackers beside our own files, through accelerate. None is on unless it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from alignzoo.errors import BadInput, nearest

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def check_trackers(names: Sequence[str]) -> None:
    """accelerate leaves a tracker that is not installed out in silence; this says so instead."""
    for name in names:
        if name not in TRACKERS:
            raise BadInput(f"unknown tracker {name!r}", hint=nearest(name, TRACKERS))
        if find_spec(name) is None:
            raise BadInput(f"tracker {name!r} is not installed", hint=f"pip install {name}")

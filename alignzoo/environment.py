"""The environment of a run: versions and platform for its record, and its trackers."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from alignzoo.errors import BadInput, nearest

RECORDED_PACKAGES = (
    "alignzoo", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets",
)  # fmt: skip
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def describe_environment() -> dict[str, Any]:
    """Return versions, platform and start time, which help to explain a difference in results."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_trackers(names: Sequence[str]) -> None:
    """Raise `BadInput` for a tracker that is unknown or not installed.

    accelerate would leave it out without a message.
    """
    for name in names:
        if name not in TRACKERS:
            raise BadInput(f"unknown tracker {name!r}", hint=nearest(name, TRACKERS))
        if find_spec(name) is None:
            raise BadInput(f"tracker {name!r} is not installed", hint=f"pip install {name}")


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Return settings as numbers and text, which every tracker accepts; others become JSON."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in settings.items()
    }

"""What a run asks a task for, each answer checked: its rows, and the score of a completion."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from alignzoo.faults import Blame, PluginMethod

ROUNDING = 1e-6  # of a score, as a fraction of the range of the task's scores


def name_of_task(task: Any) -> str:
    """Return the name of a task for messages: its own, or that of its class."""
    return getattr(task, "name", None) or type(task).__name__.lower()


def place_in_task(task: Any, method: Callable[..., Any]) -> PluginMethod:
    """Return the place of a task's method, for messages."""
    return PluginMethod.of(f"task {name_of_task(task)!r}", task, method)


def dev_split(task: Any) -> str:
    """Return the split of a task to look at while one tunes: `dev`, or `test` if it has no other.

    A task names its splits in `splits`; without it, they are train and test.
    """
    return "dev" if "dev" in getattr(task, "splits", ()) else "test"


def read_task_rows(task: Any, view: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of a view of a task.

    Raise `RunFailed` if they are not a list of dicts, or not those of an earlier call: an
    evaluation after training would then have other items than the one before.
    """
    place = place_in_task(task, task.rows)
    with Blame(place):
        rows = task.rows(view, split)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise place.fail("returned rows that are not a list of dicts")
    earlier = getattr(task, "__dict__", {}).setdefault("_rows_by_view", {})
    if earlier.setdefault((view, split), rows) != rows:
        raise place.fail(
            f"returned other rows of {view}, {split} than before",
            hint="draw them from random.Random(seed) with a seed of the task's own",
        )
    return rows


def score_by_task(task: Any, row: dict[str, Any], completion: str) -> float:
    """Return a task's score of a completion.

    Raise `RunFailed` if it is not a number from the task's worst score to its best.
    """
    place = place_in_task(task, task.score)
    with Blame(place):
        score = task.score(row, completion)
    low, high = sorted((task.worst, task.best))
    margin = ROUNDING * (high - low)
    if not isinstance(score, Real) or not low - margin <= score <= high + margin:
        raise place.fail(
            f"gave {score!r}, which is not a number from its worst, {task.worst}, to its best, "
            f"{task.best}",
            hint=f"the completion was {completion!r:.200}",
        )
    return float(score)

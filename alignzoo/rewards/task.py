"""The task's own score as a reward."""

from __future__ import annotations

from typing import Any

from alignzoo.rewards.rows import RowReward


class TaskReward(RowReward):
    """Judges each completion as the task judges it at the end."""

    def __init__(self, task: Any):
        self.task = task

    def score(self, row: dict[str, Any], completion: str) -> float:
        return self.task.score(row, completion)

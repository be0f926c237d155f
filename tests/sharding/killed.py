"""Ends a run in its third step, the first time: of several processes one, as kill -9 would."""

from __future__ import annotations

import os
from typing import Any

from alignzoo import RunFailed, hookimpl


class Killed:
    @hookimpl
    def alignzoo_step(self, run: Any, step: int) -> None:
        mark = run.record.folder / "killed"
        if step < 3 or run.world.rank < run.world.size - 1 or mark.exists():
            return
        mark.touch()
        if run.world.size == 1:
            raise RunFailed("killed")
        os._exit(9)

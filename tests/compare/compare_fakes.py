"""Boards whose cells are not runs: rows are made from names, in this process."""

from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

from alignzoo.fingerprints import core_hash
from alignzoo_compare.board import TRIAL_SEED, Row
from alignzoo_compare.cell import Cell, describe
from alignzoo_compare.grid import Grid, entries_for, with_standard

ITEMS = 12
GOLD = {"base": 0.3, "best-of-n": 0.6, "sft": 0.45, "dpo": 0.5}


def make_grid(**changes: Any) -> Grid:
    """Return a small grid of `dpo` and the standard entries on one task."""
    settings: dict[str, Any] = {
        "tasks": ("style",),
        "entries": with_standard(entries_for(["dpo"])),
        "seeds": 2,
        "budget": "1e10flops",
        "trials": 3,
        "eval_size": ITEMS,
    }
    return Grid(**{**settings, **changes})


def make_row(cell: Cell) -> Row:
    """Return the row of a cell: scores around a gold by entry, the best at three times the rate."""
    random = Random(cell.name)
    gold = GOLD.get(cell.entry, 0.4) + 0.1 * (cell.settings.get("learning_rate") == 0.003)
    scores = [min(1.0, max(0.0, gold + random.gauss(0, 0.1))) for _ in range(ITEMS)]
    items = {"score": scores, "length": [20 + i for i in range(ITEMS)], "ended": [True] * ITEMS}
    return {
        **describe(cell),
        "status": "finished",
        "error": None,
        "summary": {"score": sum(scores) / ITEMS},
        "answer_flops": 1e8 if cell.entry == "base" else None,
        "items": items | {"kl": [0.1 * i for i in range(ITEMS)]},
        "curve": [{"step": 10, "flops": 1e10, "score": sum(scores) / ITEMS, "kl": 0.5}],
        "training": {"step": [1, 2], "loss": [0.7, 0.6], "reward": [None, None]},
        "proxy": None,
        "samples": [
            {"item": i, "prompt": f"prompt {i}", "completion": f"by {cell.entry}", "score": 0.5}
            for i in range(3)
        ],
        "learning_rate": cell.settings.get("learning_rate", 0.001),
        "steps": 10,
        "ledger": {
            "total_flops": 1e10,
            "flops": {},
            "tokens": {},
            "feedback": {"pairs": 64},
            "money": 0.0,
            "seconds": 2.0,
            "peak_memory_bytes": 2**29,
        },
        "fingerprints": {
            "model": "m", "data": "d", "code": core_hash(), "plugin": "p", "task": "t",
        },
        "environment": {"packages": {"torch": "2"}},
    }  # fmt: skip


class FakeWorkers:
    """Workers that finish a cell at once, and remember the order."""

    size = 2

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.stopped = False

    def submit(self, cell: Cell, board: Path, *, allow_code: bool) -> Future[Row]:
        self.cells.append(cell)
        future: Future[Row] = Future()
        self.finish(future, cell)
        return future

    def finish(self, future: Future[Row], cell: Cell) -> None:
        future.set_result(make_row(cell))

    def stop(self) -> None:
        self.stopped = True


__all__ = ["ITEMS", "TRIAL_SEED", "FakeWorkers", "make_grid", "make_row"]

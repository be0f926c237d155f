"""Measure the CPU time of every kind of cell that `alignzoo compare` has, and add up the grid.

    python benchmarks/compare/cost.py            # the cells without a row

The cells are those of `alignzoo compare --tasks style,sums --seeds 1 --trials 1 --budget small`
with all installed algorithms, one after the other in this process, with one thread. A cell's
cost is its CPU time, user and system. Other programs of the machine raise it less than they raise
the time on the clock, but they do raise it. Trials cost what finals cost: they have the same budget
and as many prompts. So the grid with all trials and seeds is the sum over entries of (trials +
seeds) times the cost of the final cell, and what each worker takes to start. An entry that is
refused, since one step takes over twice the budget, is run once.

A row is appended to `benchmarks/results/compare/cost.jsonl` for each cell when it is done.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignzoo.cli.quiet import quiet
from alignzoo.files import append_lines, read_lines
from alignzoo_compare.board import Board, is_tuned, open_board
from alignzoo_compare.cell import Cell, run_cell
from alignzoo_compare.command import CompareCommand
from alignzoo_compare.runner import run_board
from alignzoo_compare.workers import keep_one_thread

RESULT = Path(__file__).parents[1] / "results" / "compare" / "cost.jsonl"
TASKS, BUDGET = "style,sums", "small"
TRIALS, SEEDS, CORES = 3, 2, 2  # of the grid that is added up
BOARD = Path("build/compare-cost")


class ThisProcess:
    """Runs a cell at a time in this process, and writes down its CPU time."""

    size = 1

    def submit(self, cell: Cell, board: Path, *, allow_code: bool) -> Future[dict[str, Any]]:
        """Run a cell."""
        future: Future[dict[str, Any]] = Future()
        began, waited = os.times(), time.monotonic()
        row = run_cell(cell, board, allow_code=allow_code)
        ended = os.times()
        facts = {
            "entry": cell.entry,
            "task": cell.task,
            "status": row["status"],
            "error": row["error"],
            "steps": row.get("steps"),
            "flops": row["ledger"]["total_flops"] if "ledger" in row else None,
            "cpu_seconds": round(sum(ended[:4]) - sum(began[:4]), 2),
            "seconds": round(time.monotonic() - waited, 2),
        }
        append_lines(RESULT, [facts])
        future.set_result(row)
        return future

    def stop(self) -> None:
        """Do nothing: every cell has ended."""


def main() -> None:
    """Run the cells without a row, and print what the whole grid takes."""
    grid, _ = CompareCommand(tasks=TASKS, budget=BUDGET, seeds=1, trials=1).compose()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with quiet() as log, open_board(BOARD, grid) as board:
        keep_one_thread()
        start = sum(os.times()[:4])
        run_board(board, ThisProcess(), lambda _: None)
        print(describe(board, read_lines(RESULT), start), file=log.out)


def describe(board: Board, rows: list[dict[str, Any]], start: float) -> str:
    """Return the CPU seconds of the grid with all its trials and seeds, by cell and in all."""
    tuned = replace(board.grid, trials=TRIALS)
    refused = {(row["task"], row["entry"]) for row in board.rows if row["status"] == "refused"}
    whole = {}
    for row in rows:
        place = row["task"], row["entry"]
        runs = SEEDS + TRIALS * is_tuned(tuned, row["entry"])
        whole[place] = row["cpu_seconds"] * (1 if place in refused else runs)
    lines = [
        f"{task} {entry}: {seconds:.0f} s" + " (one run, refused)" * ((task, entry) in refused)
        for (task, entry), seconds in whole.items()
    ]
    total = sum(whole.values()) + CORES * start
    minutes = total / CORES / 60
    return "\n".join([*lines, f"{total:.0f} core-seconds: {minutes:.1f} minutes of {CORES} cores"])


if __name__ == "__main__":
    main()

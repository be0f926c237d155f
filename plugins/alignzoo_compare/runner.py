"""Run the cells of a board, with a live table."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from alignzoo import BadInput
from alignzoo.errors import one_line
from alignzoo_compare.board import Board, Row, due_cells
from alignzoo_compare.cell import Cell, describe
from alignzoo_compare.grid import BASE
from alignzoo_compare.workers import Workers

TRIES = 2  # of a cell whose worker died


@dataclass
class Progress:
    """The state of a board that is running.

    Args:
        running: cells that a worker has.
        finished: rows added since this program began.
        seconds: seconds since this program began.
    """

    running: list[Cell] = field(default_factory=list)
    finished: list[Row] = field(default_factory=list)
    seconds: float = 0.0


def run_board(
    board: Board, workers: Workers, show: Callable[[Progress], None], *, allow_code: bool = False
) -> None:
    """Run every cell of the grid that has no row; an error ends the cells that are running."""
    started = time.monotonic()
    state = Progress()
    futures: dict[Future[Row], Cell] = {}
    tries: dict[tuple[str, str, str, int], int] = {}
    done: set[Future[Row]] | None = None  # before the first cell
    try:
        while True:
            if done is None or done:  # what is due changes when a cell has ended
                taken = {cell.key for cell in futures.values()}
                free = max(0, workers.size - len(futures))  # a node may have left
                for cell in [cell for cell in due_cells(board) if cell.key not in taken][:free]:
                    future = workers.submit(cell, board.folder, allow_code=allow_code)
                    futures[future] = cell
            if not futures:
                check_any_trained(board)
                return
            done, _ = wait(futures, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                cell = futures.pop(future)
                tries[cell.key] = tries.get(cell.key, 0) + 1
                row = row_of(future, cell, last=tries[cell.key] == TRIES)
                if row is not None:
                    if row["status"] == "refused" and cell.entry == BASE:
                        raise BadInput(f"task {cell.task!r} cannot be evaluated: {row['error']}")
                    board.append(row)
                    state.finished.append(row)
            state.running = list(futures.values())
            state.seconds = time.monotonic() - started
            show(state)
    finally:
        workers.stop()


def row_of(future: Future[Row], cell: Cell, *, last: bool) -> Row | None:
    """Return the row of a cell that has ended, or None to try it again: its worker died.

    Raise `BadInput` if what an earlier program left of the cell cannot be taken up again.
    """
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BadInput):
        raise error
    if not last:
        return None
    return {**describe(cell), "status": "failed", "error": f"its worker died: {one_line(error)}"}


def check_any_trained(board: Board) -> None:
    """Raise `BadInput` if the budget was too small for every entry that trains."""
    refused = [row["error"] for row in board.rows if row["status"] == "refused"]
    trained = [row for row in board.rows if row["status"] == "finished" and row["steps"]]
    if refused and not trained:
        raise BadInput(
            f"no algorithm could be trained: {refused[0]}",
            where=str(board.folder),
            hint="choose a larger --budget and another folder with --out",
        )

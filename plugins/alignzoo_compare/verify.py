"""Run a random finished cell again, and say whether its numbers come out."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from rich.console import Console

from alignzoo import BadInput, RunFailed
from alignzoo.cli.render import lines
from alignzoo_compare.board import Row, check_code, read_board
from alignzoo_compare.cell import Cell, run_cell

EXACT = ("items", "steps")  # of a row: the same numbers, on the same kind of machine
CLOSE = 1e-3  # a score's difference that another processor may cause


def verify_board(folder: Path, console: Console, *, allow_code: bool) -> None:
    """Run a random finished final cell of a board in a folder that is deleted afterwards.

    Raise `RunFailed` if its score is another one, `BadInput` if the board has no finished cell.
    """
    board = read_board(folder)
    check_code(board)
    done = [row for row in board.rows if (row["kind"], row["status"]) == ("final", "finished")]
    if not done:
        raise BadInput("no finished cell to verify", where=str(folder))
    row = random.choice(done)
    cell = Cell("final", row["entry"], row["task"], row["number"], row["settings"], row["trial"])
    lines(console, [f"running again: {row['command']}"])
    with tempfile.TemporaryDirectory(prefix="alignzoo-verify-") as place:
        again = run_cell(cell, Path(place), allow_code=allow_code)
    if again["status"] != "finished":
        raise RunFailed(f"{cell.name} does not run again: {again['error']}")
    lines(console, [compare_rows(cell.name, row, again)])


def compare_rows(name: str, row: Row, again: Row) -> str:
    """Return a line on a cell that came out again; raise `RunFailed` if it did not."""
    then, now = (sum(r["items"]["score"]) / len(r["items"]["score"]) for r in (row, again))
    if all(row[part] == again[part] for part in EXACT):
        return f"{name}: {then:.4f}, the same in every item"
    if abs(then - now) <= CLOSE:
        return f"{name}: {then:.4f} and {now:.4f} now: equal but for rounding"
    raise RunFailed(
        f"{name}: the score was {then:.4f} and is {now:.4f} now",
        hint="packages then: "
        + ", ".join(f"{k} {v}" for k, v in row["environment"]["packages"].items()),
    )

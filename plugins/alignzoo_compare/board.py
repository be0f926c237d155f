"""A board: the folder of a comparison, with its grid and a row for each finished cell."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignzoo import BadInput
from alignzoo.errors import one_line
from alignzoo.files import append_lines, without_non_finite, write_json
from alignzoo.fingerprints import core_hash
from alignzoo_compare.cell import Cell, key_of
from alignzoo_compare.grid import ALIKE, BASE, BEST_OF_N, Grid, Settings, best_of_n_size
from alignzoo_compare.tuning import Outcome, choose, knob_of, next_trials, with_trial

GRID_FILE, ROWS_FILE, LOCK_FILE = "board.json", "cells.jsonl", ".lock"
TRIAL_SEED = 1000  # none of the seeds of the final runs
MAY_GROW = ("tasks", "entries", "seeds")  # of a grid; its other settings are those of every row
Row = dict[str, Any]


@dataclass
class Board:
    """A grid and the rows so far, in the order in which they were finished."""

    folder: Path
    grid: Grid
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            self._places[row["kind"], row["entry"], row["task"]].append(row)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add the row of a cell, and write it to the disk."""
        plain, _ = without_non_finite(dict(row))
        append_lines(self.folder / ROWS_FILE, [plain], sync=True, allow_nan=False)
        self.rows.append(plain)
        self._places[row["kind"], row["entry"], row["task"]].append(plain)

    def find(self, kind: str, entry: str, task: str) -> list[Row]:
        """Return the rows of an entry on a task, in the order of their numbers."""
        return sorted(self._places[kind, entry, task], key=lambda row: row["number"])


@contextmanager
def open_board(folder: Path, grid: Grid) -> Iterator[Board]:
    """Create the folder of a board, or take it up again, for this program alone.

    Raise `BadInput` if another program has it open, its grid is another one, or its rows are
    damaged or of another version of the code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput("another program is running this comparison", where=str(folder)) from None
    try:
        if (folder / GRID_FILE).exists():
            check_grid(read_board(folder).grid, grid, folder)
            drop_cut_line(folder / ROWS_FILE)
        write_json(folder / GRID_FILE, grid.as_dict())
        board = Board(folder, grid, read_rows(folder / ROWS_FILE))
        check_code(board)
        yield board
    finally:
        lock.release()


def read_board(folder: Path) -> Board:
    """Read a board. Raise `BadInput` if the folder has none, or it is damaged."""
    path = folder / GRID_FILE
    try:
        grid = Grid.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput("not the folder of a comparison: no board.json", where=str(folder)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"cannot be read as a grid: {one_line(error)}", where=str(path)) from None
    return Board(folder, grid, read_rows(folder / ROWS_FILE))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a board without the last line if a crash cut it off.

    Raise `BadInput` for another line that is no row: what it held must not be missed in silence.
    """
    if not path.exists():
        return []
    rows: dict[tuple[str, str, str, int], Row] = {}
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[key_of(row)] = row
            if row["status"] == "finished":
                check_row(row)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"not the row of a cell: {one_line(error)}",
                where=f"{path}, line {number}",
                hint="delete the line: its cell is then run again, and the others are kept",
            ) from None
    return list(rows.values())


def check_row(row: Row) -> None:
    """Raise `KeyError`, `TypeError` or `ValueError` if a finished row lacks its results."""
    sizes = {len(values) for values in row["items"].values()}
    if len(sizes) != 1:
        raise ValueError("its columns of items differ in length")
    if any(not isinstance(score, int | float) for score in row["items"]["score"]):
        raise TypeError("a score is not a number")
    float(row["ledger"]["total_flops"]), row["fingerprints"]["code"], row["split"]


def drop_cut_line(path: Path) -> None:
    """Cut off the end of a file of lines that a crash left incomplete."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)


def check_grid(before: Grid, now: Grid, folder: Path) -> None:
    """Raise `BadInput` if a grid is not the one of the board, apart from more cells."""
    then, new = before.as_dict(), now.as_dict()
    for name in then:
        if name not in MAY_GROW and then[name] != new[name]:
            raise BadInput(
                f"this board was made with {name} {then[name]!r}, not {new[name]!r}",
                where=str(folder),
                hint="repeat the command as it was, or choose another folder with --out",
            )
    for name, settings in before.entries.items():
        if name in now.entries and now.entries[name] != settings:
            raise BadInput(f"entry {name!r} has other settings than before", where=str(folder))


def check_code(board: Board) -> None:
    """Raise `BadInput` if rows were made by another version of the code than this one."""
    present = core_hash()
    others = [
        row
        for row in board.rows
        if row["status"] == "finished" and row["fingerprints"]["code"] != present
    ]
    if others:
        raise BadInput(
            f"{len(others)} of {len(board.rows)} cells were run by another version of alignzoo",
            where=str(board.folder),
            hint="go on with that version, or choose another folder with --out",
        )


def due_cells(board: Board) -> list[Cell]:
    """Return the cells that can be run now, in the order in which to run them.

    One task comes after the other, so that a board that is stopped early compares all entries on
    the first tasks. Of a task the base comes first, then the trials, and then the finals, all
    entries at one seed before the next seed.
    """
    done = {key_of(row) for row in board.rows}
    found = []
    for task in board.grid.tasks:
        finals = [
            cell
            for seed in range(board.grid.seeds)
            for entry in board.grid.entries
            if (cell := final_cell(board, entry, task, seed)) is not None
        ]
        found += [cell for cell in finals if cell.entry == BASE]
        found += [cell for entry in board.grid.entries for cell in trial_cells(board, entry, task)]
        found += [cell for cell in finals if cell.entry != BASE]
    return [cell for cell in found if cell.key not in done]


def count_cells(board: Board) -> int:
    """Return the number of cells of the whole grid, as far as it is known: some may be refused."""
    grid = board.grid
    each = sum(grid.seeds + (grid.trials if is_tuned(grid, entry) else 0) for entry in grid.entries)
    return each * len(grid.tasks)


def is_tuned(grid: Grid, entry: str) -> bool:
    """Return True if an entry has trials: those without training have nothing to tune."""
    return grid.trials > 1 and grid.entries[entry]["algorithm"] != BEST_OF_N


def trial_cells(board: Board, entry: str, task: str) -> list[Cell]:
    """Return the trials of an entry on a task that are not done and can be run now."""
    if not is_tuned(board.grid, entry):
        return []
    rows = board.find("trial", entry, task)
    if any(row["status"] == "refused" for row in rows):
        return []
    done = {row["number"] for row in rows}
    # Trials may finish in another order than they began, and a crash may leave a gap.
    known = [row for place, row in enumerate(rows) if row["number"] == place]
    knob = knob_of(board.grid.entries[entry])
    trials = next_trials(outcomes(known), board.grid.trials, knob)
    return [
        Cell(
            "trial",
            entry,
            task,
            number,
            full_settings(board, entry, task, trial, TRIAL_SEED) | {"eval_split": "dev"},
            trial,
        )
        for number, trial in enumerate(trials, start=len(known))
        if number not in done
    ]


def final_cell(board: Board, entry: str, task: str, seed: int) -> Cell | None:
    """Return a final cell, or None while its settings are not known, or if they were refused."""
    grid = board.grid
    trial: dict[str, float] = {}
    if is_tuned(grid, entry):
        rows = board.find("trial", entry, task)
        if any(row["status"] == "refused" for row in rows) or trial_cells(board, entry, task):
            return None
        trial = choose(outcomes(rows))
    settings = full_settings(board, entry, task, trial, seed) | {"eval_split": "test"}
    if entry == BEST_OF_N and "n" not in (settings.get("options") or {}):
        costs = [row.get("answer_flops") for row in board.find("final", BASE, task)]
        if not costs or costs[0] is None:
            return None
        settings["options"] = {"n": best_of_n_size(grid, costs[0])}
    if grid.curve and is_tuned(grid, entry):
        steps = board.find("trial", entry, task)[0].get("steps") or 0
        settings["eval_every"] = max(1, steps // (grid.curve + 1))
    settings["eval_before"] = entry == BASE
    return Cell("final", entry, task, seed, settings, trial, grid.also)


def full_settings(
    board: Board, entry: str, task: str, trial: dict[str, float], seed: int
) -> Settings:
    """Return the recipe settings of a run of an entry."""
    grid = board.grid
    settings = with_trial(grid.entries[entry], trial)
    common = dict(grid.common)
    if settings["algorithm"] == BEST_OF_N:  # it has no settings of training
        common = {name: value for name, value in common.items() if name in (*ALIKE, "addons")}
    else:
        settings |= {"budget": grid.budget, "checkpoint_every": 10}
    if grid.model is not None:
        settings["model"] = grid.model
    return {
        **settings,
        **common,
        "task": task,
        "seed": seed,
        "eval_size": grid.eval_size,
        "eval_before": False,
        "eval_held_out": False,  # no report shows it
    }


def outcomes(rows: list[Row]) -> list[Outcome]:
    """Return the outcomes of the rows of trials."""
    return [
        Outcome(
            row["trial"],
            sum(row["items"]["score"]) / len(row["items"]["score"])
            if row["status"] == "finished"
            else float("-inf"),
            row.get("learning_rate"),
        )
        for row in rows
    ]

"""The slow work of a round, written part by part so that it can be read and resumed.

If a row costs many generations or judge calls, the checkpoint after a round's first step comes too
late. So the rows are processed in parts, each is written when it is done, and finished parts are
read instead of computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from alignzoo import Run
from alignzoo.files import append_lines, json_lines, read_lines, write_text
from alignzoo.ledger import Ledger

R = TypeVar("R")
Line = dict[str, Any]
ROWS_PER_PART = 64


def keep_journal(
    run: Run, name: str, rows: Sequence[R], make: Callable[[Sequence[R], int], list[Line]]
) -> list[Line]:
    """Return `make(part, start)` of each part of the rows, kept as NAME.jsonl in the run's folder.

    `make` returns one line per row of its part, whose first row has index `start` in the round. It
    must draw from seeds of the round and of `start`, so that a part that was cut off comes out the
    same. The line after a part holds what it has spent, so that a resumed run has the same ledger.
    """
    path = journal_path(run, name)
    done = read_parts(path)
    lines: list[Line] = []
    is_long = len(rows) > ROWS_PER_PART
    with run.ui.items(len(rows), name) if is_long else nullcontext() as advance:
        for start in range(0, len(rows), ROWS_PER_PART):
            part = rows[start : start + ROWS_PER_PART]
            if (run.round, start) in done:
                made, spent = done[run.round, start]
                ledger = Ledger()
                ledger.restore(spent)
                run.ledger.add(ledger)
            else:
                before = deepcopy(run.ledger)
                made = make(part, start)
                end = {"part": start, "spent": run.ledger.since(before).as_dict()}
                append_lines(
                    path, [{"round": run.round, **line} for line in [*made, end]], sync=True
                )
            lines += made
            if advance is not None:
                advance(len(part))
    return lines


def journal_path(run: Run, name: str) -> Path:
    """Return this process's file; each process keeps a journal of its own."""
    rank = run.world.rank
    return run.record.folder / (f"{name}.jsonl" if rank == 0 else f"{name}.{rank}.jsonl")


def read_parts(path: Path) -> dict[tuple[int, int], tuple[list[Line], dict[str, Any]]]:
    """Return the complete parts, (lines, what was spent), by round and start.

    Lines after the last complete part, as a crash leaves them, are removed from the file.
    """
    if not path.is_file():
        return {}
    found: dict[tuple[int, int], tuple[list[Line], dict[str, Any]]] = {}
    part: list[Line] = []
    lines, complete = read_lines(path), 0
    for n, line in enumerate(lines, start=1):
        if "spent" not in line:
            part.append({k: v for k, v in line.items() if k != "round"})
            continue
        found[line["round"], line["part"]] = part, line["spent"]
        part, complete = [], n
    text = json_lines(lines[:complete])
    if path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    return found

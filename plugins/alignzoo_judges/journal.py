"""The slow work of a round, written part by part so that it can be read and resumed.

If a row costs many generations or judge calls, the checkpoint after a round's first step comes too
late. So the rows are processed in parts, each is written when it is done, and finished parts are
read instead of computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from alignzoo import Run
from alignzoo.errors import count
from alignzoo.files import (
    append_lines,
    digest,
    json_lines,
    with_digest,
    without_digest,
    write_text,
)
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
    done, damaged = read_parts(path)
    if damaged:
        run.ui.note(f"{path}: {count(damaged, 'damaged part')} left out")
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
                spent = run.ledger.since(before).as_dict()
                append_part(path, run.round, start, made, spent)
            lines += made
            if advance is not None:
                advance(len(part))
    return lines


def journal_path(run: Run, name: str) -> Path:
    """Return this process's file; each process keeps a journal of its own."""
    rank = run.world.rank
    return run.record.folder / (f"{name}.jsonl" if rank == 0 else f"{name}.{rank}.jsonl")


def append_part(
    path: Path, index: int, start: int, lines: Sequence[Line], spent: dict[str, Any]
) -> None:
    """Append the lines of a part of a round, and a line with what they cost and their digest."""
    rows = [{"round": index, **line} for line in lines]
    end = {"round": index, "part": start, "rows": len(rows), "lines": digest(json_lines(rows))}
    append_lines(path, [*rows, with_digest({**end, "spent": spent})], sync=True)


def read_parts(path: Path) -> tuple[dict[tuple[int, int], tuple[list[Line], dict[str, Any]]], int]:
    """Return the intact parts, (lines, what was spent), by round and start, and how many are not.

    Damaged parts, and lines after the last complete part, as a crash leaves them, are removed from
    the file.
    """
    if not path.is_file():
        return {}, 0
    found: dict[tuple[int, int], tuple[list[Line], dict[str, Any]]] = {}
    kept, part, damaged = "", [], 0
    text = path.read_bytes().decode(errors="replace")
    for line in text.split("\n")[:-1]:
        part.append(line + "\n")
        end = parse_end(line)
        if end is None:
            continue
        first = max(0, len(part) - 1 - end["rows"])  # lines before are of a part without its end
        rows = part[first:-1]
        intact = digest("".join(rows)) == end["lines"]
        damaged += (not intact) + (first > 0)
        if intact:
            lines = [{k: v for k, v in json.loads(row).items() if k != "round"} for row in rows]
            found[end["round"], end["part"]] = lines, end["spent"]
            kept += "".join(part[first:])
        part = []
    if kept != text:
        write_text(path, kept)
    return found, damaged


def parse_end(line: str) -> dict[str, Any] | None:
    """Return the last line of a part as a mapping, None for any other line or a damaged one."""
    try:
        end = without_digest(json.loads(line))
    except ValueError:
        return None
    return end if end is not None and "spent" in end else None

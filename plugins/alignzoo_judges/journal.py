"""What a round's sampling made, as lines that people read and that a stopped run takes up.

Where a row costs many generations, or calls of a judge, a checkpoint after the round's first step
comes too late. So the rows are worked on in parts, each is written as soon as it is done, and what
is there is read instead of made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignzoo.files import append_lines, json_lines, read_lines, write_text
from alignzoo.ledger import Ledger

if TYPE_CHECKING:
    from alignzoo.run.run import Run

Row = TypeVar("Row")
Line = dict[str, Any]
PART = 64  # rows that are worked on at once


def journal(
    run: Run, name: str, rows: Sequence[Row], make: Callable[[Sequence[Row], int], list[Line]]
) -> list[Line]:
    """`make(part, start)`, part by part of the rows, as lines of NAME.jsonl in the run's folder.

    `make` gives a line for each row of its part, of which the first is the `start`th of the round;
    it draws from seeds of the round and of `start`, so that it would give the same again. The line
    after those of a part says what the part has spent, so that the ledger of a run that was stopped
    is charged as if it had not been.
    """
    path = path_of(run, name)
    known = parts_in(path)
    lines: list[Line] = []
    long = len(rows) > PART
    with run.ui.items(len(rows), name) if long else nullcontext() as advance:
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            if (run.round, start) in known:
                done, spent = known[run.round, start]
                bill = Ledger()
                bill.restore(spent)
                run.ledger.add(bill)
            else:
                before = deepcopy(run.ledger)
                done = make(part, start)
                close = {"part": start, "spent": run.ledger.since(before).as_dict()}
                append_lines(
                    path, [{"round": run.round, **line} for line in [*done, close]], sync=True
                )
            lines += done
            if advance is not None:
                advance(len(part))
    return lines


def path_of(run: Run, name: str) -> Path:
    """Each process writes what it made."""
    index = run.world.rank
    return run.record.folder / (f"{name}.jsonl" if index == 0 else f"{name}.{index}.jsonl")


def parts_in(path: Path) -> dict[tuple[int, int], tuple[list[Line], dict[str, Any]]]:
    """The parts that are whole, and what each has spent, by round and start. What a crash has cut
    off is taken out of the file."""
    if not path.is_file():
        return {}
    found: dict[tuple[int, int], tuple[list[Line], dict[str, Any]]] = {}
    part: list[Line] = []
    lines, whole = read_lines(path), 0
    for n, line in enumerate(lines, start=1):
        if "spent" not in line:
            part.append({k: v for k, v in line.items() if k != "round"})
            continue
        found[line["round"], line["part"]] = part, line["spent"]
        part, whole = [], n
    text = json_lines(lines[:whole])
    if path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    return found

"""Answers of people on the disk: a file of rows that training reads, and one of the others.

An answer is one line of one of the two files, appended under a lock and flushed to the disk, so
that no crash parts it. To undo one, its file is replaced by one without its line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignzoo import BadInput
from alignzoo.data import Content
from alignzoo.files import append_lines, read_lines, require_regular, write_bytes

Row = dict[str, Any]
ABOUT = ("id", "item", "who", "when", "seed")  # columns of every row, beside those of the training
OWN = {*ABOUT, *"prompt chosen rejected first completion label completions verdict".split()}
OWN |= {"repeats", "note"}
FORMS = {"pairs": ("prompt", "chosen", "rejected"), "ratings": ("prompt", "completion", "label")}


class AnswerFile:
    """The answers in `path`, and beside it those that training does not read.

    These are ties, pairs of two bad completions, skips and repeats, in `NAME.rest.jsonl`. Several
    processes may append to the files at once.
    """

    def __init__(self, path: Path, mode: str):
        self.path, self.mode = path, mode
        self.rest = path.with_suffix(f".rest{path.suffix}")
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._known: tuple[list[tuple[int, int, int]], list[Row]] = ([], [])

    def check(self) -> None:
        """Raise `BadInput` if a file cannot be written, or holds something else than answers."""
        if self.path.suffix != ".jsonl":
            raise BadInput(
                "answers are written as JSON Lines",
                where=str(self.path),
                hint="name a file that ends in .jsonl: --out prefs.jsonl",
            )
        if not self.path.parent.is_dir() or not os.access(self.path.parent, os.W_OK):
            raise BadInput("no such folder, or one that cannot be written", where=str(self.path))
        for path, columns in ((self.path, FORMS[self.mode]), (self.rest, ("prompt", "verdict"))):
            if path.exists():
                check_rows(path, (*ABOUT, *columns))

    def append(self, row: Row, *, trains: bool) -> None:
        """Append an answer; it is on the disk on return."""
        path = self.path if trains else self.rest
        with self._lock:
            is_new = not path.exists()
            if not is_new:
                mend_last_line(path)
            append_lines(path, [row], sync=True)
            if is_new:
                sync_folder(path.parent)

    def undo(self, who: str) -> Row | None:
        """Take the last answer of a person off its file, and return it; None if there is none."""
        with self._lock:
            answers = [row for row in self.rows() if row["who"] == who]
            if not answers:
                return None
            last = max(answers, key=lambda row: row["when"])
            for path in (self.path, self.rest):
                lines = path.read_bytes().split(b"\n") if path.exists() else []
                kept = [line for line in lines if id_in(line) != last["id"]]
                if len(kept) < len(lines):
                    write_bytes(path, b"\n".join(kept))
                    sync_folder(path.parent)
        return last

    def rows(self) -> list[Row]:
        """Return the answers of both files, of everybody, in the order in which they were given."""
        stamps = [stamp(path) for path in (self.path, self.rest)]
        if stamps != self._known[0]:
            paths = (self.path, self.rest)
            found = [row for path in paths for row in read_lines(path, skip_damaged=True)]
            self._known = stamps, sorted(found, key=lambda row: row["when"])
        return self._known[1]


def stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does; zeros if there is none."""
    with suppress(FileNotFoundError):
        facts = path.stat()
        return facts.st_ino, facts.st_size, facts.st_mtime_ns
    return 0, 0, 0


def id_in(line: bytes) -> str | None:
    """Return the id of the answer in a line; None if the line is damaged."""
    with suppress(ValueError, TypeError, KeyError):
        return json.loads(line)["id"]
    return None


def check_rows(path: Path, columns: Sequence[str]) -> None:
    """Raise `BadInput` unless every complete line of a file is an answer with these columns."""
    require_regular(path)
    hint = "choose another --out"
    *lines, last = path.read_bytes().split(b"\n")
    if not lines and last and not last.startswith(b'{"id": "'):
        raise BadInput("not an answer", where=str(path), hint=hint)
    for number, line in enumerate(lines, start=1):
        row = None
        with suppress(ValueError):
            row = json.loads(line)
        if not isinstance(row, dict) or not row.keys() >= {*columns}:
            found = f"it has {', '.join(row)}" if isinstance(row, dict) and row else "it has none"
            raise BadInput(
                f"not an answer, whose columns are {', '.join(columns)}: {found}",
                where=f"{path}, line {number}",
                hint=hint,
            )


def mend_last_line(path: Path) -> None:
    """Complete a last line that lacks only its end; cut off one whose writing was interrupted.

    Such an answer was never confirmed to the person who gave it.
    """
    with path.open("rb+") as file:
        data = file.read()
        start = data.rfind(b"\n") + 1
        if start == len(data):
            return
        try:
            json.loads(data[start:])
            file.write(b"\n")
        except ValueError:
            file.truncate(start)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk, where the system can do that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def answer_row(
    *,
    id: str,
    item: str,
    who: str,
    seed: int,
    prompt: Content,
    shown: Sequence[str],
    verdict: str,
    note: str,
    repeats: str | None,
    columns: Row,
) -> tuple[Row, bool]:
    """Return an answer as a row, and whether training reads it.

    Args:
        id: a name of this answer that no other has.
        item: the digest of the prompt and its candidates.
        who, seed: the person, and the seed of what was drawn.
        prompt: text, or messages.
        shown: the completions, two from left to right or one.
        verdict: left, right, tie, both-bad or skip; of one completion good, bad or skip.
        note: what the person wrote; may be empty.
        repeats: the id of the answer that this one repeats, to measure consistency; or None.
        columns: other columns that belong to the prompt.
    """
    row: Row = {"id": id, "item": item, "prompt": prompt, **columns}
    about = {"who": who, "when": datetime.now(UTC).isoformat(), "seed": seed}
    if note:
        about["note"] = note
    trains = repeats is None and verdict in ("left", "right", "good", "bad")
    if not trains:
        row |= {"completions": list(shown), "verdict": verdict}
        if repeats is not None:
            row["repeats"] = repeats
    elif len(shown) == 2:
        chosen, rejected = shown if verdict == "left" else (shown[1], shown[0])
        first = "chosen" if verdict == "left" else "rejected"
        row |= {"chosen": as_content(prompt, chosen), "rejected": as_content(prompt, rejected)}
        row["first"] = first  # on the left of the page
    else:
        row |= {"completion": as_content(prompt, shown[0]), "label": verdict == "good"}
    return {**row, **about}, trains


def as_content(prompt: Content, completion: str) -> Content:
    """Return a completion in the form of its prompt, text or messages."""
    if isinstance(prompt, str):
        return completion
    return [{"role": "assistant", "content": completion}]


def text_of(content: Content) -> str:
    """Return the text of a completion that `as_content` made."""
    return content if isinstance(content, str) else content[-1]["content"]


def shown_in(row: Row) -> tuple[str, ...]:
    """Return the completions that were shown for an answer, from left to right."""
    if "completions" in row:
        return tuple(row["completions"])
    if "completion" in row:
        return (text_of(row["completion"]),)
    pair = text_of(row["chosen"]), text_of(row["rejected"])
    return pair if row["first"] == "chosen" else pair[::-1]


def columns_in(row: Row) -> Row:
    """Return the columns of an answer that belong to its prompt."""
    return {name: value for name, value in row.items() if name not in OWN}


def verdict_of(row: Row) -> str:
    """Return the verdict of an answer, in the words of the page."""
    if "verdict" in row:
        return row["verdict"]
    if "label" in row:
        return "good" if row["label"] else "bad"
    return "left" if row["first"] == "chosen" else "right"

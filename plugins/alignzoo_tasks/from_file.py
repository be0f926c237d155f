"""The base class of tasks whose rows come from a file, a folder or the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, ClassVar

from alignzoo import BadInput
from alignzoo.data import location, read_table

Row = dict[str, Any]


@dataclass(eq=False)
class FileTask:
    """A task with the prompts of a data set, each in the split that a hash of its text gives.

    A task derived from it has `score(row, completion)`, or `measure` as `Pairs` has. Held-out files
    of a folder (`test.jsonl`), if there are any, are the test split instead.
    """

    path: Annotated[str, "file, folder or name on the Hub [default: the one on the Hub]"] = ""

    views: ClassVar[tuple[str, ...]] = ("prompts",)
    splits: ClassVar[tuple[str, ...]] = ("train", "dev", "test")
    worst: ClassVar[float] = 0.0
    best: ClassVar[float] = 1.0
    name: ClassVar[str]
    hub: ClassVar[str]  # the data set, and its own test split if it has one
    hub_test: ClassVar[str] = ""
    shares: ClassVar[tuple[float, float]] = (0.25, 0.25)  # of dev, and of test without test files

    def read(self, row: Row) -> Row | None:
        """Return a row of the data set as a prompt and the columns of the score.

        Return None for a row that the task cannot use. Raise `KeyError` without a column.
        """
        raise NotImplementedError

    def key(self, row: Row) -> str:
        """Return the text whose hash decides on the split of a row."""
        return row["prompt"][0]["content"]

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of a split, in the order of the file. Raise `BadInput` without any."""
        if view not in self.views or split not in self.splits:
            raise ValueError(f"task {self.name!r} has no view {view!r} with a split {split!r}")
        rows, test_rows = self._read_files()
        if split == "test" and test_rows:
            return test_rows
        dev, test = self.shares
        trained = dev if test_rows else dev + test  # where the train split begins
        low, high = {"dev": (0, dev), "test": (dev, dev + test), "train": (trained, 1)}[split]
        found = [row for row in rows if low <= place(self.key(row)) < high]
        if not found:
            raise BadInput(
                f"task {self.name!r}: no usable rows in the split {split!r}",
                where=self.path or self.hub,
            )
        return found

    def _read_files(self) -> tuple[list[Row], list[Row]]:
        """Return the usable rows, and those of the data set's own test split."""
        table = read_table(self.path or self.hub)
        test = table.test
        if not self.path and self.hub_test:
            test = read_table(self.hub_test).train
        return self._usable(table.train), self._usable(test)

    def _usable(self, parts: list[Any]) -> list[Row]:
        found = []
        for number, row in enumerate((row for part in parts for row in part.rows), start=1):
            try:
                found.append(self.read(row))
            except (KeyError, BadInput) as error:
                lacks = f"column {error} missing"
                raise BadInput(
                    f"task {self.name!r}: "
                    + (lacks if isinstance(error, KeyError) else error.message),
                    where=location(parts, number),
                    hint=f"columns: {', '.join(row)}",
                ) from None
        return [row for row in found if row is not None]


def place(text: str) -> float:
    """Return a number in [0, 1) that depends on a text alone, evenly spread over texts."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def ask(text: str) -> list[Row]:
    """Return a text as one user message."""
    return [{"role": "user", "content": text}]

"""A report on the rows of a data set: how many were read, left out (why), truncated, derived."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from alignzoo.errors import count

SHOWN = 5  # row numbers per reason


@dataclass
class Report:
    """Counts and notes on one set of rows, or on several, `parts`.

    Row numbers count from 1, as in the file. `left_out` holds the rows of every reason;
    `truncated` counts prompts, completions, chosen, rejected, texts and dropped steps separately.
    A derivation may make two examples of a row, whose number then occurs twice.
    """

    source: str = ""
    max_length: int = 0
    read: int = 0
    train: int = 0
    test: int = 0
    left_out: dict[str, list[int]] = field(default_factory=dict)
    remarks: dict[str, list[int]] = field(default_factory=dict)
    truncated: Counter[str] = field(default_factory=Counter)
    derivations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[Report] = field(default_factory=list)

    def leave_out(self, reason: str, row: int) -> None:
        """Record that a row was left out, and why."""
        self.left_out.setdefault(reason, []).append(row)

    def remark(self, text: str, row: int) -> None:
        """Record that something is to be said of a row that is used."""
        self.remarks.setdefault(text, []).append(row)

    def reasons(self) -> list[str]:
        """Return a line per reason: `2 rows left out: the completion is empty (rows 4, 17)`."""
        return [
            f"{count(len(rows), 'row')} left out: {reason} ({list_rows(rows)})"
            for reason, rows in self.left_out.items()
        ]

    def lines(self) -> list[str]:
        """Return the report in sentences, for people."""
        total = f"{count(self.train, 'training example')}, {self.test:,} held out"
        if self.parts:
            told = [(part, line) for part in self.parts for line in part.summary() + part.notes]
            return [*(f"{part.source}: {line}" for part, line in told), total, *self.notes]
        first, *rest = self.summary()
        return [f"{self.source}: {first}", *rest, total, *self.notes]

    def summary(self) -> list[str]:
        """Return the sentences on the rows of one set, without its name."""
        found = [f"{count(self.read, 'row')} read", *self.derivations, *self.reasons()]
        if self.truncated:
            parts = ", ".join(f"{name} {n:,}" for name, n in sorted(self.truncated.items()))
            found.append(f"truncated to {self.max_length:,} tokens: {parts}")
        found += [f"{text} ({_rows_counted(rows)})" for text, rows in self.remarks.items()]
        return found


def _rows_counted(rows: list[int]) -> str:
    """Return `2 of the rows: 4, 17`, each counted once."""
    return f"{count(len(set(rows)), 'row')}: {list_rows(rows).split(maxsplit=1)[1]}"


def list_rows(rows: list[int]) -> str:
    """Return `row 3`, or `rows 3, 17, 20, 44, 51, ...`."""
    shown = sorted(set(rows))
    more = ", ..." if len(shown) > SHOWN else ""
    listing = ", ".join(map(str, shown[:SHOWN]))
    return f"row{'' if len(shown) == 1 else 's'} {listing}{more}"

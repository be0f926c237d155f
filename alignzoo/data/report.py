"""What became of the rows: read, left out and why, truncated, derived."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 5  # row numbers per reason


@dataclass
class Report:
    """An account of one set of rows, or of several: `parts`. Row numbers count from 1, as in the
    file.

    `left_out` holds the rows of every reason; `truncated` counts prompts, completions, chosen,
    rejected, texts and dropped steps apart. After a derivation one row may have given two
    examples, so that its number can occur twice.
    """

    source: str = ""
    max_length: int = 0
    read: int = 0
    train: int = 0
    test: int = 0
    left_out: dict[str, list[int]] = field(default_factory=dict)
    truncated: Counter[str] = field(default_factory=Counter)
    derivations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[Report] = field(default_factory=list)

    def leave_out(self, reason: str, row: int) -> None:
        self.left_out.setdefault(reason, []).append(row)

    @property
    def left_out_count(self) -> int:
        return sum(len(rows) for rows in self.left_out.values())

    def reasons(self) -> list[str]:
        """`3 rows left out: the completion is empty (rows 4, 17, 20)`, one line per reason."""
        return [
            f"{count(len(rows), 'row')} left out: {reason} ({numbers(rows)})"
            for reason, rows in self.left_out.items()
        ]

    def lines(self) -> list[str]:
        """The account in sentences, for people."""
        total = f"{count(self.train, 'example')} to learn from, {self.test:,} held out"
        if self.parts:
            told = [(part, line) for part in self.parts for line in part.account() + part.notes]
            return [*(f"{part.source}: {line}" for part, line in told), total, *self.notes]
        first, *rest = self.account()
        return [f"{self.source}: {first}", *rest, total, *self.notes]

    def account(self) -> list[str]:
        """What became of the rows of one set, without its name."""
        found = [f"{count(self.read, 'row')} read", *self.derivations, *self.reasons()]
        if self.truncated:
            parts = ", ".join(f"{name} {n:,}" for name, n in sorted(self.truncated.items()))
            found.append(f"truncated to {self.max_length:,} tokens: {parts}")
        return found


def count(n: int, noun: str) -> str:
    """`1 row`, `2,312 rows`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def numbers(rows: list[int]) -> str:
    """`row 3`, or `rows 3, 17, 20, 44, 51, ...`."""
    shown = sorted(set(rows))
    more = ", ..." if len(shown) > SHOWN else ""
    listing = ", ".join(map(str, shown[:SHOWN]))
    return f"row{'' if len(shown) == 1 else 's'} {listing}{more}"

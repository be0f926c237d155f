"""What the answers come to: counts, agreement with oneself, and the next command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.cli.render import shell_command
from alignzoo_label.answers import Row, verdict_of

FEW = 1000  # answers of which one pass, in steps of 32, would be too few steps
FEW_SETTINGS = "--epochs 6 --batch-size 8".split()
SWAPPED = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Summary:
    """Counts of answers.

    Attributes:
        verdicts: how often each verdict was given, repeats left out.
        agreed, repeats: of the pairs that came back swapped, those answered alike, and all.
        left: the share of preferences for the completion on the left, None without any.
    """

    verdicts: dict[str, int]
    agreed: int
    repeats: int
    left: float | None

    @property
    def consistency(self) -> str:
        """Return a sentence on the repeats, empty without any."""
        if not self.repeats:
            return ""
        return f"same answer to swapped repeats: {self.agreed} of {self.repeats}"


def summarise(rows: Sequence[Row]) -> Summary:
    """Count the answers of one person or of several.

    A repeat whose first answer was taken back does not count. Skipping one agrees with nothing.
    """
    first = {row["id"]: verdict_of(row) for row in rows if "repeats" not in row}
    pairs = [
        (first[row["repeats"]], verdict_of(row)) for row in rows if row.get("repeats") in first
    ]
    agreed = sum(SWAPPED.get(before, before) == after for before, after in pairs)
    verdicts = Counter(first.values())
    sides = verdicts["left"] + verdicts["right"]
    left = verdicts["left"] / sides if sides else None
    return Summary(dict(verdicts), agreed, len(pairs), left)


def describe(summary: Summary) -> list[str]:
    """Return the summary as lines."""
    total = sum(summary.verdicts.values())
    counts = [f"{n} {name.replace('-', ' ')}" for name, n in sorted(summary.verdicts.items())]
    lines = [f"answers: {total}" + (f" ({', '.join(counts)})" if counts else "")]
    if summary.consistency:
        lines.append(summary.consistency)
    if summary.left is not None:
        lines.append(f"share of preferences for the left side: {summary.left:.2f}")
    return lines


def next_commands(
    path: Path, rows: Sequence[Row], mode: str, model: str | None, task: str | None
) -> list[str]:
    """Return the commands that train on the answers, and the one that measures a judge by them."""
    trained = sum("verdict" not in row for row in rows)
    settings = ["--data", str(path)]
    settings += ["--model", model] if model else []
    settings += ["--task", task] if task else []
    settings += FEW_SETTINGS if trained < FEW else []
    algorithms = ("dpo", "kto", "reward") if mode == "pairs" else ("kto", "bco")
    commands = [["alignzoo", "run", name, *settings] for name in algorithms]
    commands.append(["alignzoo", "judge", "--judge", "MODEL", "--data", str(path)])
    return [shell_command(words) for words in commands]

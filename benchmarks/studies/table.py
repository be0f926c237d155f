"""The rows of a study as the tables that stand on the plugins' pages.

    python benchmarks/studies/table.py offline              # every method
    python benchmarks/studies/table.py offline --only dpo   # those of one page
    python benchmarks/studies/table.py constitution --measures harmful,insults

Of each method and task: the mean over seeds before and after, the mean gain with its 95% interval
over seeds (Student's, so that chance in training is in it), and in how many of the seeds the
interval after training, over items, lies wholly above the one before. Of what else the task
measures, means over seeds, before -> after.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import typer
from study import measure_of, rows_of

from alignzoo.evaluation.statistics import mean_with_interval


def values(rows: list[dict[str, Any]], phase: str, name: str) -> list[float]:
    return [row[phase][name]["mean"] for row in rows if name in row[phase]]


def mean(numbers: list[float], digits: int = 3) -> str:
    return f"{sum(numbers) / len(numbers):.{digits}f}" if numbers else "-"


def line(method: str, task: str, rows: list[dict[str, Any]], measures: list[str]) -> str:
    """One row of the table."""
    name = measure_of(rows[0])
    before, after = values(rows, "before", name), values(rows, "after", name)
    gain = mean_with_interval([b - a for a, b in zip(before, after, strict=True)])
    apart = sum(row["after"][name]["low"] > row["before"][name]["high"] for row in rows)
    spread = f" [{gain.low:+.3f}, {gain.high:+.3f}]" if gain.low is not None else ""
    cells = [
        f"`{method}`",
        f"`{task}`",
        mean(before),
        mean(after),
        f"{gain.mean:+.3f}{spread}",
        f"{apart} of {len(rows)}",
        mean(values(rows, "after", "kl"), 2),
        mean(values(rows, "after", "length"), 1),
        *(
            " -> ".join(mean(values(rows, phase, each)) for phase in ("before", "after"))
            for each in measures
        ),
    ]
    return f"| {' | '.join(cells)} |"


def main(study: str, only: str = "", measures: str = "") -> None:
    """Print the table of a study."""
    more = measures.split(",") if measures else []
    found = defaultdict(list)
    for row in sorted(rows_of(study), key=lambda row: row["seed"]):
        if not only or row["settings"]["algorithm"] in only.split(","):
            found[row["method"], row["task"]].append(row)
    names = ["method", "task", "before", "after", "gain", "seeds apart", "KL", "length", *more]
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for (method, task), rows in found.items():
        print(line(method, task, rows, more))


if __name__ == "__main__":
    typer.run(main)

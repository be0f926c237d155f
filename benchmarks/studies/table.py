"""Print the rows of a study as the tables on the plugins' pages.

    python benchmarks/studies/table.py offline              # every method
    python benchmarks/studies/table.py offline --only dpo   # the methods of one page
    python benchmarks/studies/table.py constitution --measures harmful,insults

For each method and task: the mean over seeds before and after, the mean gain with its 95% interval
over seeds (Student's, which includes the randomness of training), and the number of seeds at which
the interval over items after training lies above the one before. For other measures of the task:
means over seeds, before -> after.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import typer
from study import format_mean, main_measure, read_results


def collect_means(rows: list[dict[str, Any]], phase: str, name: str) -> list[float]:
    """Return a measure of each row that has it."""
    return [row[phase][name]["mean"] for row in rows if name in row[phase]]


def format_number(numbers: list[float], digits: int = 3) -> str:
    """Return the mean of numbers without an interval, "-" for none."""
    return f"{sum(numbers) / len(numbers):.{digits}f}" if numbers else "-"


def table_line(method: str, task: str, rows: list[dict[str, Any]], measures: list[str]) -> str:
    """Return one row of the table."""
    name = main_measure(rows[0])
    before, after = (collect_means(rows, phase, name) for phase in ("before", "after"))
    gains = [b - a for a, b in zip(before, after, strict=True)]
    apart = sum(row["after"][name]["low"] > row["before"][name]["high"] for row in rows)
    cells = [
        f"`{method}`",
        f"`{task}`",
        format_number(before),
        format_number(after),
        format_mean(gains, "+"),
        f"{apart} of {len(rows)}",
        format_number(collect_means(rows, "after", "kl"), 2),
        format_number(collect_means(rows, "after", "length"), 1),
        *(
            " -> ".join(
                format_number(collect_means(rows, phase, each)) for phase in ("before", "after")
            )
            for each in measures
        ),
    ]
    return f"| {' | '.join(cells)} |"


def main(study: str, only: str = "", measures: str = "") -> None:
    """Print the table of a study."""
    more = measures.split(",") if measures else []
    found = defaultdict(list)
    for row in sorted(read_results(study), key=lambda row: row["seed"]):
        if not only or row["settings"]["algorithm"] in only.split(","):
            found[row["method"], row["task"]].append(row)
    names = ["method", "task", "before", "after", "gain", "seeds apart", "KL", "length", *more]
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for (method, task), rows in found.items():
        print(table_line(method, task, rows, more))


if __name__ == "__main__":
    typer.run(main)

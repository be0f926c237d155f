"""Compare two methods of a study after each of their evaluations: rounds, or passes.

    python benchmarks/studies/rounds.py selfplay --methods spin,sft-more

Means over seeds of the score, and of differences seed by seed: of the first method from its start,
and from the second method. All with 95% intervals (Student's).
"""

from __future__ import annotations

from typing import Any

import typer
from study import format_mean, read_results


def list_scores(row: dict[str, Any]) -> list[float]:
    """Return the scores before training, at each evaluation between, and after it."""
    before, after = (row[phase]["score"]["mean"] for phase in ("before", "after"))
    return [before, *(point["score"] for point in row["during"]), after]


def subtract(one: list[float], other: list[float]) -> list[float]:
    """Return one list minus the other, element by element."""
    return [a - b for a, b in zip(one, other, strict=True)]


def table_lines(rows: list[dict[str, Any]], first: str, second: str) -> list[str]:
    """Return the table of one task: a line for each evaluation, over the seeds of both methods."""
    runs = {(row["method"], row["seed"]): list_scores(row) for row in rows}
    both = [
        (own, runs[second, seed])
        for (method, seed), own in sorted(runs.items())
        if method == first and (second, seed) in runs
    ]
    found = []
    for index in range(min(len(scores) for pair in both for scores in pair)):
        start, one = ([own[i] for own, _ in both] for i in (0, index))
        other = [scores[index] for _, scores in both]
        gain, lead = (format_mean(subtract(one, x), "+") if index else "" for x in (start, other))
        found.append(f"| {index} | {format_mean(one)} | {gain} | {format_mean(other)} | {lead} |")
    return found


def main(study: str, methods: str = "spin,sft-more") -> None:
    """Print a table for each task."""
    first, second = methods.split(",")
    rows = read_results(study)
    for task in dict.fromkeys(row["task"] for row in rows):
        print(f"\n| `{task}` | `{first}` | less the start | `{second}` | `{first}` less it |")
        print("|---|---|---|---|---|")
        print("\n".join(table_lines([row for row in rows if row["task"] == task], first, second)))


if __name__ == "__main__":
    typer.run(main)

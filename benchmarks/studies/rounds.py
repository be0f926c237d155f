"""Two methods of a study side by side after each of their evaluations: rounds, or passes.

    python benchmarks/studies/rounds.py selfplay --methods spin,sft-more

Means over seeds of the score, and of the differences seed by seed: of the first method from where
it began, and from the second one. All with 95% intervals (Student's).
"""

from __future__ import annotations

from typing import Any

import typer
from study import rows_of

from alignzoo.evaluation.statistics import mean_with_interval


def scores(row: dict[str, Any]) -> list[float]:
    """At the beginning, at each evaluation between, at the end."""
    before, after = (row[phase]["score"]["mean"] for phase in ("before", "after"))
    return [before, *(point["score"] for point in row["during"]), after]


def told(values: list[float], sign: str = "") -> str:
    found = mean_with_interval(values)
    if found.low is None:
        return f"{found.mean:{sign}.3f}"
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def less(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def lines(rows: list[dict[str, Any]], first: str, second: str) -> list[str]:
    """The table of one task: a line for each evaluation, over the seeds that both have."""
    runs = {(row["method"], row["seed"]): scores(row) for row in rows}
    both = [
        (own, runs[second, seed])
        for (method, seed), own in sorted(runs.items())
        if method == first and (second, seed) in runs
    ]
    found = []
    for index in range(min(len(scores) for pair in both for scores in pair)):
        start, one = ([own[i] for own, _ in both] for i in (0, index))
        other = [scores[index] for _, scores in both]
        gain, lead = (told(less(one, x), "+") if index else "" for x in (start, other))
        found.append(f"| {index} | {told(one)} | {gain} | {told(other)} | {lead} |")
    return found


def main(study: str, methods: str = "spin,sft-more") -> None:
    """Print a table for each task."""
    first, second = methods.split(",")
    rows = rows_of(study)
    for task in dict.fromkeys(row["task"] for row in rows):
        print(f"\n| `{task}` | `{first}` | less the start | `{second}` | `{first}` less it |")
        print("|---|---|---|---|---|")
        print("\n".join(lines([row for row in rows if row["task"] == task], first, second)))


if __name__ == "__main__":
    typer.run(main)

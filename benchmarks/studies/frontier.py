"""Compare the scores of methods at equal KL to the base, by the evaluations during their runs.

    python benchmarks/studies/frontier.py rlhf --only ppo,dpo-long --at 0.5,1,2,4

The score at a KL is interpolated linearly between the evaluations of a run in the order of their
KL; a run that does not reach a KL has no score there. Means over seeds, and the difference of the
first two methods seed by seed, with 95% intervals (Student's).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import typer
from study import format_mean, read_results

ENDS = ("before", "after")


def curve(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return KL and score at each evaluation of a run, in the order of the KL."""
    ends = [{name: row[phase][name]["mean"] for name in ("kl", "score")} for phase in ENDS]
    points = sorted((point["kl"], point["score"]) for point in [*ends, *row["during"]])
    kl, score = zip(*points, strict=True)
    return np.array(kl), np.array(score)


def score_at(row: dict[str, Any], kl: float) -> float | None:
    """Return the score at a KL, None if the run did not reach it."""
    distances, scores = curve(row)
    return float(np.interp(kl, distances, scores)) if kl <= distances[-1] else None


def format_mean_and_count(values: list[float]) -> str:
    """Return a mean with its interval and the number of values, "-" for none."""
    return f"{format_mean(values)} ({len(values)})" if values else "-"


def main(study: str, only: str = "ppo,dpo-long", at: str = "0.5,1,2,4") -> None:
    """Print a table of scores at each KL; the last column is the first method minus the second."""
    methods = only.split(",")
    runs = {(row["method"], row["seed"]): row for row in read_results(study)}
    print("| KL | " + " | ".join(f"`{name}`" for name in methods) + " | difference |")
    print("|---|" + "---|" * (len(methods) + 1))
    for kl in map(float, at.split(",")):
        found = [
            {seed: score_at(row, kl) for (name, seed), row in runs.items() if name == method}
            for method in methods
        ]
        scores = [{seed: s for seed, s in column.items() if s is not None} for column in found]
        first, second = scores[:2]
        gaps = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
        columns = [list(column.values()) for column in scores]
        print(f"| {kl:g} | " + " | ".join(map(format_mean_and_count, [*columns, gaps])) + " |")


if __name__ == "__main__":
    typer.run(main)

"""The score of methods at equal distance from the base, from the evaluations during their runs.

    python benchmarks/studies/frontier.py rlhf --only ppo,dpo-long --at 0.5,1,2,4

Of each seed the score at a KL is read off the straight lines between a run's evaluations in the
order of their KL; a run that never went so far has none there. Means over seeds, and the difference
of two methods seed by seed, with 95% intervals (Student's).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import typer
from study import rows_of

from alignzoo.evaluation.statistics import mean_with_interval

ENDS = ("before", "after")


def curve(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """KL and score at each evaluation of a run, by KL."""
    ends = [{name: row[phase][name]["mean"] for name in ("kl", "score")} for phase in ENDS]
    points = sorted((point["kl"], point["score"]) for point in [*ends, *row["during"]])
    kl, score = zip(*points, strict=True)
    return np.array(kl), np.array(score)


def score_at(row: dict[str, Any], kl: float) -> float | None:
    """The score at that KL; None where the run did not reach it."""
    distances, scores = curve(row)
    return float(np.interp(kl, distances, scores)) if kl <= distances[-1] else None


def told(values: list[float]) -> str:
    """A mean and its interval, and how many values there are."""
    if not values:
        return "-"
    found = mean_with_interval(values)
    if found.low is None:
        return f"{found.mean:.3f} (1)"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] ({len(values)})"


def main(study: str, only: str = "ppo,dpo-long", at: str = "0.5,1,2,4") -> None:
    """A table of scores at each KL; the last column is the first method less the second."""
    methods = only.split(",")
    runs = {(row["method"], row["seed"]): row for row in rows_of(study)}
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
        print(f"| {kl:g} | " + " | ".join(map(told, [*columns, gaps])) + " |")


if __name__ == "__main__":
    typer.run(main)

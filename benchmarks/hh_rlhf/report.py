"""Print the table of the study: `python benchmarks/hh_rlhf/report.py SCRATCH`.

Copy the rows of SCRATCH to `benchmarks/results/hh_rlhf/` and write `table.md` beside them. Without
SCRATCH, make the table from the rows already there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from alignzoo.evaluation import Estimate, mean_with_interval

RESULTS = Path(__file__).parents[1] / "results" / "hh_rlhf"
LONGER, SHORTER = "longer answer", "shorter answer"
OUTCOMES = ("right", "wrong")
Row = dict[str, Any]


def main() -> None:
    """Copy the rows, write the table and print it."""
    if len(sys.argv) > 1:
        rows = read_results(Path(sys.argv[1]) / "rows.jsonl")
        rows.sort(key=lambda row: (row["judge"], row["fold"]))
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = make_table(read_results(RESULTS / "rows.jsonl"))
    (RESULTS / "table.md").write_text(text)
    print(text)


def read_results(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_table(rows: list[Row]) -> str:
    """Return a line per judge, the best first; each is compared on the folds that it has."""
    judges: dict[str, list[Row]] = {}
    for row in rows:
        judges.setdefault(row["judge"], []).append(row)
    lines = [
        "| judge | right | accuracy, 95% interval | by fold | chosen longer | chosen not longer "
        "| less the shorter answer's | while training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, own in sorted(
        judges.items(), key=lambda item: -count_right(item[1]) / count_all(item[1])
    ):
        folds = [row["fold"] for row in own]
        longer = pool_outcomes([row for row in judges[LONGER] if row["fold"] in folds])
        shorter = pool_outcomes([row for row in judges[SHORTER] if row["fold"] in folds])
        outcomes = pool_outcomes(own)
        by_fold = ", ".join(f"{count_right([row]) / count_all([row]):.3f}" for row in own)
        training = [row["accuracy_training"] for row in own if row.get("accuracy_training")]
        cells = [
            name,
            f"{count_right(own)} of {count_all(own)}",
            format_estimate(mean_with_interval(list(outcomes.values()))),
            by_fold,
            format_estimate(mean_with_interval([outcomes[i] for i in outcomes if longer[i]])),
            format_estimate(mean_with_interval([outcomes[i] for i in outcomes if not longer[i]])),
            format_estimate(mean_with_interval([outcomes[i] - shorter[i] for i in outcomes]))
            if name != SHORTER
            else "",
            f"{sum(training) / len(training):.3f}" if training else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pool_outcomes(rows: list[Row]) -> dict[int, int]:
    """Return 1 for each pair judged right and 0 for each judged wrong, by the pair's id."""
    return {i: int(which == "right") for row in rows for which in OUTCOMES for i in row[which]}


def count_right(rows: list[Row]) -> int:
    """Return the number of pairs judged right."""
    return sum(len(row["right"]) for row in rows)


def count_all(rows: list[Row]) -> int:
    """Return the number of pairs."""
    return sum(len(row[which]) for row in rows for which in OUTCOMES)


def format_estimate(found: Estimate) -> str:
    """Return a mean and its interval."""
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()

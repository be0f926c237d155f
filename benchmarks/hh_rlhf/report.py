"""The table of the study: `python benchmarks/hh_rlhf/report.py SCRATCH`.

Copies the rows of SCRATCH to `benchmarks/results/hh_rlhf/` and writes `table.md` beside them.
Without SCRATCH, the table is made from the rows that are there.
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
    if len(sys.argv) > 1:
        rows = read(Path(sys.argv[1]) / "rows.jsonl")
        rows.sort(key=lambda row: (row["judge"], row["fold"]))
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = table(read(RESULTS / "rows.jsonl"))
    (RESULTS / "table.md").write_text(text)
    print(text)


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows: list[Row]) -> str:
    """A line per judge, the best one first; all are compared on the folds that they have."""
    judges: dict[str, list[Row]] = {}
    for row in rows:
        judges.setdefault(row["judge"], []).append(row)
    lines = [
        "| judge | right | accuracy, 95% interval | by fold | chosen longer | chosen not longer "
        "| less the shorter answer's | while training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, own in sorted(judges.items(), key=lambda item: -right(item[1]) / total(item[1])):
        folds = [row["fold"] for row in own]
        longer = pooled([row for row in judges[LONGER] if row["fold"] in folds])
        shorter = pooled([row for row in judges[SHORTER] if row["fold"] in folds])
        outcomes = pooled(own)
        by_fold = ", ".join(f"{right([row]) / total([row]):.3f}" for row in own)
        training = [row["accuracy_training"] for row in own if row.get("accuracy_training")]
        cells = [
            name,
            f"{right(own)} of {total(own)}",
            show(mean_with_interval(list(outcomes.values()))),
            by_fold,
            show(mean_with_interval([outcomes[i] for i in outcomes if longer[i]])),
            show(mean_with_interval([outcomes[i] for i in outcomes if not longer[i]])),
            show(mean_with_interval([outcomes[i] - shorter[i] for i in outcomes]))
            if name != SHORTER
            else "",
            f"{sum(training) / len(training):.3f}" if training else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pooled(rows: list[Row]) -> dict[int, int]:
    """1 for each pair that was judged rightly, 0 for the others."""
    return {i: int(which == "right") for row in rows for which in OUTCOMES for i in row[which]}


def right(rows: list[Row]) -> int:
    return sum(len(row["right"]) for row in rows)


def total(rows: list[Row]) -> int:
    return sum(len(row[which]) for row in rows for which in OUTCOMES)


def show(found: Estimate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()

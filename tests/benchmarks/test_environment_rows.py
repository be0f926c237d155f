"""The table of the environments' page is that of the recorded rows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from alignzoo.evaluation.statistics import Estimate, mean_with_interval

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks/results/environments/totals.jsonl"
LINE = re.compile(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| (\d.*) \|$", re.MULTILINE)


def cells_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return the cells of runs: their number, score before and after, asked, FLOPs."""
    scores = [row["after"]["score"] for row in rows]
    # Of one run, the interval over prompts; of two, none.
    after = Estimate(**scores[0])
    if len(rows) > 1:
        after = mean_with_interval([score["mean"] for score in scores])
    before, asked = (
        sum(row[phase][name]["mean"] for row in rows) / len(rows)
        for phase, name in (("before", "score"), ("after", "asked"))
    )
    flops = sum(row["ledger"]["total_flops"] for row in rows) / len(rows)
    return [
        str(len(rows)),
        f"{before:.3f}",
        f"{after.mean:.3f}"
        + (f" [{after.low:.3f}, {after.high:.3f}]" if after.low is not None else ""),
        f"{asked:.3f}",
        f"{flops:.1e}".replace("e+", "e"),
    ]


def test_the_table_is_made_of_the_rows():
    found = defaultdict(list)
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        settings = {"temperature": 1.0, **row["settings"]}
        if settings["eval_split"] == "test":
            run = (settings["algorithm"], str(settings["steps"]), str(settings["temperature"]))
            found[run].append(row)
    page = (ROOT / "docs/environments.md").read_text(encoding="utf-8")
    table = {tuple(run): cells.split(" | ") for *run, cells in LINE.findall(page)}
    assert table == {run: cells_of(rows) for run, rows in found.items()}

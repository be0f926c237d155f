"""Tables on the algorithms' pages are those of the recorded rows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from alignzoo.evaluation.statistics import mean_with_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/studies"
FILES = ("offline", "constitution")  # whose tables have a line for each method and task
LINE = re.compile(r"^\| `([\w-]+)` \| `(\w+)` \| (.*\[.*) \|$", re.MULTILINE)
MEASURES = ("harmful", "bare_refusals", "over_refusals", "insults")


def read_rows() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the rows by method and task."""
    found = defaultdict(list)
    for name in FILES:
        for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["method"], row["task"]].append(row)
    return found


def means(rows: list[dict[str, Any]], phase: str, name: str) -> list[float]:
    return [row[phase][name]["mean"] for row in rows if name in row[phase]]


def average(values: list[float], digits: int = 3) -> str:
    return f"{sum(values) / len(values):.{digits}f}" if values else "-"


def cells_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return the cells of a line after method and task."""
    name = "score" if "score" in rows[0]["after"] else "held-out/rewards/accuracies"
    before, after = (means(rows, phase, name) for phase in ("before", "after"))
    gain = mean_with_interval([b - a for a, b in zip(before, after, strict=True)])
    apart = sum(row["after"][name]["low"] > row["before"][name]["high"] for row in rows)
    return [
        average(before),
        average(after),
        f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
        f"{apart} of {len(rows)}",
        average(means(rows, "after", "kl"), 2),
        average(means(rows, "after", "length"), 1),
        *(
            " -> ".join(average(means(rows, phase, name)) for phase in ("before", "after"))
            for name in MEASURES
            if name in rows[0]["after"]
        ),
    ]


ROWS = read_rows()
LINES = [
    (path.parent.name, *match.groups())
    for path in sorted(ROOT.glob("plugins/alignzoo_zoo/*/README.md"))
    for match in LINE.finditer(path.read_text(encoding="utf-8"))
    if match.groups()[:2] in ROWS
]


def test_every_method_has_a_line():
    assert {(method, task) for _, method, task, _ in LINES} == set(ROWS)


@pytest.mark.parametrize(("page", "method", "task", "line"), LINES)
def test_a_line_is_made_of_the_rows(page, method, task, line):
    assert line.split(" | ") == cells_of(ROWS[method, task])

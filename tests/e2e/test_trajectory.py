"""The real command line, a number of steps, against committed numbers.

The numbers guard against changes that nobody meant. After a change that was meant:
`ALIGNZOO_REWRITE=1 pytest tests/e2e/test_trajectory.py`, and look at the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alignzoo.cli import status

HERE = Path(__file__).parent / "trajectories"
RUNS = {
    "dpo": ["--steps", "30", "--batch-size", "16", "--learning-rate", "0.0008693878900208466"],
    "sft": ["--steps", "30", "--batch-size", "16", "--task", "sums"],
    "pretrain": ["--steps", "30", "--batch-size", "16", "--random-init", "--learning-rate", "2e-3"],
}
WATCHED = ("loss", "grad_norm", "rewards/margins")


@pytest.mark.parametrize("algorithm", list(RUNS))
def test_the_run_is_the_one_we_know(tmp_path, algorithm, capfd):
    words = ["run", algorithm, *RUNS[algorithm], "--eval-size", "0", "--output-dir", str(tmp_path)]
    assert status([*words, "--name", "one"]) == 0
    capfd.readouterr()
    rows = [json.loads(x) for x in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    found = [{k: round(row[k], 6) for k in WATCHED if k in row} for row in rows]
    path = HERE / f"{algorithm}.json"
    if os.environ.get("ALIGNZOO_REWRITE"):
        HERE.mkdir(exist_ok=True)
        path.write_text("\n".join(json.dumps(row) for row in found) + "\n")
    known = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(found) == len(known) == 30
    for step, (row, expected) in enumerate(zip(found, known, strict=True), 1):
        # Other processors round otherwise, and each step builds on the ones before.
        assert row == pytest.approx(expected, rel=2e-2, abs=2e-3), f"step {step}"

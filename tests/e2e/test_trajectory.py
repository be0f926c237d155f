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
    assert_same_trajectory(found, known)


def assert_same_trajectory(found: list[dict[str, float]], known: list[dict[str, float]]) -> None:
    """Hold every step to 2%, and the mean residual, which rounding leaves near 0, to 0.2%.

    Other processors round otherwise, and each step builds on the ones before; but a change of the
    formula can stay below 2% and push all steps to one side.
    """
    for step, (row, expected) in enumerate(zip(found, known, strict=True), 1):
        assert row == pytest.approx(expected, rel=2e-2, abs=2e-3), f"step {step}"
    for name in known[0]:
        size = sum(abs(row[name]) for row in known) / len(known)
        residual = sum(a[name] - b[name] for a, b in zip(found, known, strict=True)) / len(known)
        assert abs(residual) <= 2e-3 * size, f"{name} drifts by {residual / size:.2%}"


def test_a_drift_to_one_side_is_seen():
    known = [{"loss": 0.7 - 0.01 * step} for step in range(30)]
    scattered = [{"loss": row["loss"] * (1 + 0.01 * (-1) ** i)} for i, row in enumerate(known)]
    assert_same_trajectory(scattered, known)
    drifted = [{"loss": row["loss"] * 1.01} for row in known]
    with pytest.raises(AssertionError, match="loss drifts by 1.00%"):
        assert_same_trajectory(drifted, known)

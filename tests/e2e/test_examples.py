"""The examples run as their first lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo.cli import status

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(tmp_path: Path, *words: str) -> list[dict]:
    quick = ["--steps", "2", "--batch-size", "4", "--eval-size", "0", "--name", "one"]
    assert status(["run", *words, *quick, "--output-dir", str(tmp_path)]) == 0
    return [json.loads(x) for x in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]


def test_an_algorithm_in_a_file(tmp_path):
    rows = run(tmp_path, str(EXAMPLES / "ipo.py"), "--beta", "0.2")
    # Before the first step the policy is the reference: (0 - 1 / 0.4)^2.
    assert rows[0]["loss"] == pytest.approx(6.25, abs=1e-5)


def test_an_add_on_in_a_file(tmp_path):
    rows = run(tmp_path, "dpo", "--with", str(EXAMPLES / "log_lengths.py"))
    assert all(row["log_lengths/mean"] > 1 for row in rows)


def test_every_example_is_run_here():
    assert {p.name for p in EXAMPLES.iterdir() if p.suffix == ".py"} == {"ipo.py", "log_lengths.py"}

"""The examples run as their first lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo.cli import status

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(tmp_path: Path, *words: str) -> list[dict]:
    quick = ["--steps", "2", "--batch-size", "4", "--eval-size", "0", "--name", "one"]
    assert status(["run", words[0], *quick, "--output-dir", str(tmp_path), *words[1:]]) == 0
    return [json.loads(x) for x in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]


def test_an_algorithm_in_a_file(tmp_path):
    rows = run(tmp_path, str(EXAMPLES / "ipo.py"), "--beta", "0.2")
    # Before the first step the policy is the reference: (0 - 1 / 0.4)^2.
    assert rows[0]["loss"] == pytest.approx(6.25, abs=1e-5)


def test_a_teacher(tmp_path):
    more = ["--task", "sums", "--teacher", "zoo-tiny", "--learning-rate", "0.1", "--warmup", "0"]
    rows = run(tmp_path, str(EXAMPLES / "distill.py"), *more)
    # Before the first step the student is its teacher.
    assert abs(rows[0]["loss"]) < 1e-5 < rows[1]["loss"]
    facts = json.loads((tmp_path / "one/run.json").read_text())
    assert list(facts["models"]) == ["zoo-tiny"]


def test_an_add_on_in_a_file(tmp_path):
    rows = run(tmp_path, "dpo", "--with", str(EXAMPLES / "log_lengths.py"))
    assert all(row["log_lengths/mean"] > 1 for row in rows)


def test_an_optimizer_and_a_learning_rate(tmp_path):
    rows = run(tmp_path, "dpo", "--with", str(EXAMPLES / "sgd.py"), "--learning-rate", "0.5")
    assert [row["learning_rate"] for row in rows] == [0.5, pytest.approx(0.5 * 0.98)]
    assert rows[1]["loss"] < rows[0]["loss"]


def test_noise_in_the_gradient(tmp_path):
    with_noise, without = (
        run(tmp_path / name, "dpo", *more)
        for name, more in [("a", ["--with", str(EXAMPLES / "gradient_noise.py")]), ("b", [])]
    )
    assert with_noise[0]["loss"] == without[0]["loss"]
    assert with_noise[0]["grad_norm"] > 1.5 * without[0]["grad_norm"]


def test_short_rows_first(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(map(ROW.format, ("a b " * n for n in (5, 8, 1, 4, 2, 7, 3, 6)))))
    more = ["--batch-size", "2", "--steps", "5", "--data", str(data)]
    more += ["--with", str(EXAMPLES / "short_first.py")]
    assert len(run(tmp_path, "sft", *more)) == 5
    ledger = json.loads((tmp_path / "one/run.json").read_text())["ledger"]
    assert ledger["feedback"]["demonstrations"] == 8  # the fifth step has the first rows again


ROW = '{{"prompt": "{}", "completion": "c"}}\n'


def test_early_stopping(tmp_path):
    addon = str(EXAMPLES / "early_stopping.py")
    more = ["--learning-rate", "0.3", "--eval-every", "1", "--eval-size", "2", "--steps", "20"]
    more += ["--max-new-tokens", "4", "--schedule", "constant", "--warmup", "0"]
    rows = run(tmp_path, "sft", "--task", "sums", "--with", addon, *more)
    facts = json.loads((tmp_path / "one/run.json").read_text())
    assert facts["stopped"].startswith("the held-out loss has not fallen")
    losses = [facts["results"][f"step {row['step']}"]["held-out/loss"]["mean"] for row in rows]
    losses.insert(0, facts["results"]["before"]["held-out/loss"]["mean"])
    assert losses.index(min(losses)) == len(losses) - 4 < 20


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))

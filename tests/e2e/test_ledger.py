"""What a run says that it spent, and stopping on it."""

from __future__ import annotations

import json

import pytest

from alignzoo.session.session import execute, recipe_for

SETTINGS = {"batch_size": 8, "eval_size": 0, "checkpoint_every": 0}


def test_a_budget_ends_the_run_and_its_schedule(tmp_path):
    # At least one step over, and at most one.
    recipe = recipe_for("dpo", {**SETTINGS, "output_dir": str(tmp_path), "budget": "2e10flops"})
    folder = execute(recipe).folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["flops"] >= 2e10 > rows[-2]["flops"]
    assert len(rows) > 4
    rates = [row["learning_rate"] for row in rows]
    assert max(rates) > 5 * rates[-1]
    assert (
        json.loads((folder / "run.json").read_text())["ledger"]["total_flops"] == rows[-1]["flops"]
    )


def test_the_ledger_of_dpo(tmp_path):
    recipe = recipe_for("dpo", {**SETTINGS, "output_dir": str(tmp_path), "steps": 3})
    ledger = json.loads((execute(recipe).folder / "run.json").read_text())["ledger"]
    # A frozen base: forward and backward of the policy cost twice the reference, but for the
    # adapter: three times 4 layers of rank 16, with these input + output sizes.
    adapter = 2 * 3 * 4 * 16 * (4 * 256 + 3 * 480) * ledger["tokens"]["update"]
    assert ledger["flops"]["update"] - adapter == pytest.approx(2 * ledger["flops"]["reference"])
    assert ledger["tokens"]["update"] == ledger["tokens"]["reference"] > 0
    assert ledger["feedback"]["pairs"] == 24
    assert ledger["flops"]["generation"] == 0
    assert ledger["seconds"] > 0
    assert ledger["peak_memory_bytes"] > 1e8


def test_a_row_is_paid_for_once(tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text("".join(f'{{"prompt": "{i}", "completion": "x"}}\n' for i in range(9)))
    settings = {**SETTINGS, "output_dir": str(tmp_path / "runs"), "data": str(data), "epochs": 3.0}
    ledger = json.loads((execute(recipe_for("sft", settings)).folder / "run.json").read_text())[
        "ledger"
    ]
    assert ledger["feedback"]["demonstrations"] == 9


SLOW = """
import time
from alignzoo import hookimpl

class Slow:
    "Takes its time before the first step."

    @hookimpl
    def alignzoo_start(self, run):
        time.sleep(0.5)
"""


def test_the_time_before_the_first_step_counts(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    settings = {**SETTINGS, "output_dir": str(tmp_path), "steps": 0, "addons": [str(path)]}
    assert execute(recipe_for("dpo", settings)).ledger.seconds >= 0.5

"""What a run says that it spent, and stopping on it."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for

SETTINGS = {"batch_size": 8, "eval_size": 0, "checkpoint_every": 0}


def read_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_budget_ends_the_run_and_its_schedule(tmp_path):
    # At least one step over, and at most one.
    recipe = recipe_for("dpo", {**SETTINGS, "output_dir": str(tmp_path), "budget": "2e10flops"})
    folder = execute(recipe).folder
    rows = read_rows(folder)
    assert rows[-1]["flops"] >= 2e10 > rows[-2]["flops"]
    assert len(rows) > 4
    rates = [row["learning_rate"] for row in rows]
    assert max(rates) > 5 * rates[-1]
    assert (
        json.loads((folder / "run.json").read_text())["ledger"]["total_flops"] == rows[-1]["flops"]
    )


def test_a_first_step_over_twice_the_budget_is_refused(tmp_path):
    settings = {**SETTINGS, "output_dir": str(tmp_path)}
    (one,) = read_rows(execute(recipe_for("grpo", {**settings, "steps": 1})).folder)
    half = f"{0.6 * one['flops']:.0f}flops"
    assert len(read_rows(execute(recipe_for("grpo", {**settings, "budget": half})).folder)) == 1
    less = {**settings, "budget": f"{0.1 * one['flops']:.0f}flops", "name": "less"}
    with pytest.raises(BadInput, match="--budget: one step takes over 2 times"):
        execute(recipe_for("grpo", less))
    assert not (tmp_path / "less").exists()


def test_a_first_step_over_twice_the_feedback_is_refused(tmp_path):
    # 8 prompts with 8 completions each are 64 calls of the verifier.
    settings = {**SETTINGS, "output_dir": str(tmp_path)}
    enough = recipe_for("grpo", {**settings, "budget": "32feedback"})
    assert len(read_rows(execute(enough).folder)) == 1
    less = {**settings, "budget": "31feedback", "name": "less"}
    with pytest.raises(BadInput, match="--budget: one step takes over 2 times 31feedback"):
        execute(recipe_for("grpo", less))


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


def test_a_plugin_cannot_bypass_the_ledger(make_run):
    run = make_run("dpo", steps=1, batch_size=2)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    ids = torch.arange(20, 30)[None]
    flops = run.ledger.flops

    def spent(compute) -> dict[str, float]:
        before = dict(flops)
        compute()
        return {name: n - before[name] for name, n in flops.items() if n != before[name]}

    with torch.no_grad():
        forward = spent(lambda: run.model.network(ids))
        assert forward == {"scoring": run.model.flops.forward(10, 55, 10)}
        assert spent(lambda: run.model(batch)) == {"scoring": run.model.cost(batch).flops}
        reference = run.model.cost(batch, reference=True).flops
        assert spent(lambda: run.model.reference(batch)) == {"reference": reference}
        teacher = run.load_model("zoo-tiny", same_tokens=True)
        assert run.load_model("zoo-tiny") is teacher
        assert spent(lambda: teacher(batch)) == {"scoring": teacher.cost(batch).flops}
        with run.forwards.purpose("generation"):
            assert set(spent(lambda: run.model.network(ids))) == {"generation"}
        with run.free_of_charge():
            assert not spent(lambda: (run.model.network(ids), teacher(batch)))
            assert not spent(lambda: run.charge("reward", flops=1.0))
    with run.forwards.purpose("update"):
        assert spent(lambda: run.policy(batch)) == {
            "update": run.model.cost(batch, backward=True).flops
        }
        assert spent(lambda: teacher(batch)) == {"update": teacher.cost(batch).flops}


def test_run_charge(make_run):
    run = make_run("dpo", steps=1)
    run.charge("reward", flops=2e9, tokens=7, money=0.5, seconds=3.0)
    run.charge("reward", flops=1e9)
    assert (run.ledger.flops["reward"], run.ledger.tokens["reward"]) == (3e9, 7)
    assert (run.ledger.money, run.ledger.seconds) == (0.5, 3.0)
    with pytest.raises(BadInput, match="no purpose 'rewards'(?s:.*)did you mean 'reward'"):
        run.charge("rewards", flops=1.0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="flops is"):
            run.charge("reward", flops=wrong)


ANSWERS = """
import torch
from alignzoo import hookimpl
from alignzoo.rollout import Completion

class Answers:
    "Answers by the likeliest token, through the network alone."

    @hookimpl
    def alignzoo_answer(self, run, rows):
        found = []
        for row in rows:
            logits = run.model.network(torch.tensor([row.prompt])).logits[0, -1]
            found.append(Completion([int(logits.argmax())], [0.0], True))
        return found
"""


def test_answers_through_the_network_are_charged(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(ANSWERS)
    settings = {"task": "sums", "output_dir": str(tmp_path), "steps": 0, "eval_size": 2}
    result = execute(recipe_for("sft", {**SETTINGS, **settings, "addons": [str(path)]}))
    assert result.after.summary["answer/flops"].mean > 1e6
    assert result.ledger.flops["generation"] == 2 * result.after.summary["answer/flops"].mean
    assert result.ledger.flops["scoring"] == 0

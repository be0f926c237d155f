"""A run that was killed and resumed is the run that was not: bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from resuming import (
    assert_same_run,
    interrupt,
    rounds_sampled,
    rows_of,
    state_of,
    straight_and_broken,
)

from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for

SETTINGS = {"steps": 9, "batch_size": 4, "checkpoint_every": 4, "eval_size": 4}
DROPOUT = {"lora_dropout": 0.1}


MOVING = {"reference_every": 3, "reference_mix": 0.6}


ADAPTERS = ("dora", "rslora", "loha", "lokr", "vera", "oft", "ia3", "prompt", "prefix")


@pytest.mark.parametrize(
    ("algorithm", "options", "adapter"),
    [
        *((name, {}, DROPOUT) for name in ("dpo", "sft", "kto", "bco", "reward")),
        ("dpo", MOVING, DROPOUT),
        *(
            pytest.param("dpo", {"reference_every": 3}, {"adapter": kind}, id=kind)
            for kind in ADAPTERS
        ),
    ],
)
def test_interrupted_and_resumed_is_the_same_run(
    tmp_path: Path, monkeypatch, algorithm, options, adapter
):
    settings = {**SETTINGS, **adapter, "options": options, "output_dir": str(tmp_path)}

    def recipe(name: str):
        return recipe_for(algorithm, {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=7)
    assert json.loads((broken / "run.json").read_text())["status"] == "interrupted"
    assert [row["step"] for row in rows_of(broken)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(BadInput, match="batch_size was 4 and is 8 now"):
        execute(recipe_for(algorithm, {**settings, "name": "broken", "batch_size": 8}), resume=True)

    resumed = execute(recipe("broken"), resume=True)
    assert resumed.status == "finished"
    assert_same_run(broken, straight)
    evals = [(broken / "evals.jsonl").read_text(), (straight / "evals.jsonl").read_text()]
    assert evals[0] == evals[1]
    with pytest.raises(BadInput, match="finished"):
        execute(recipe("broken"), resume=True)


LONG_ROUNDS = """
from dataclasses import dataclass
from alignzoo import Loss, Prompts, Rounds, hookimpl

@dataclass(eq=False)
class LongRounds:
    data = Prompts
    group_size = 2
    rounds = Rounds(rows=6, iterations=2)

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        return batch["rewards"] - 0.5

    @hookimpl
    def alignzoo_loss(self, run, batch):
        ratio = (batch.total(run.policy(batch).logprobs - batch["logprobs"])).exp()
        return Loss.per_sequence(-batch["advantages"] * ratio)
"""


def test_a_long_round_is_taken_up_in_its_middle(tmp_path: Path, monkeypatch):
    """Rounds of 6 steps, on completions that are not generated again."""
    algorithm = tmp_path / "long_rounds.py"
    algorithm.write_text(LONG_ROUNDS)
    settings = {
        **SETTINGS,
        "task": "sums",
        "batch_size": 2,
        "max_new_tokens": 16,
        "checkpoint_every": 2,
        "output_dir": str(tmp_path),
    }

    def recipe(name: str):
        return recipe_for(str(algorithm), {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=6)
    state = state_of(broken)
    assert (state["step"], state["current"]["done"]) == (4, 4)

    rounds = rounds_sampled(monkeypatch)
    execute(recipe("broken"), resume=True)
    assert rounds == [1]
    assert_same_run(broken, straight)


SLOW = """
import os, time
from alignzoo import hookimpl

class Slow:
    "Waits after the first step."

    @hookimpl
    def alignzoo_step(self, run, step):
        (run.record.folder / "began").touch()
        time.sleep(float(os.environ.get("SLEEP", 0)))
"""


def test_a_live_run_is_not_resumed(tmp_path: Path, capfd):
    addon = tmp_path / "slow.py"
    addon.write_text(SLOW)
    words = ["run", "sft", "--output-dir", str(tmp_path), "--name", "live", "--eval-size", "0"]
    words += ["--steps", "1", "--with", str(addon)]
    slowly = {**os.environ, "SLEEP": "60"}
    live = subprocess.Popen([sys.executable, "-m", "alignzoo", *words], env=slowly)
    try:
        while not (tmp_path / "live" / "began").exists():
            assert live.poll() is None
            time.sleep(0.1)
        before = (tmp_path / "live" / "run.json").read_text()
        assert status([*words, "--resume"]) == 2
        assert "another program is working on this run" in capfd.readouterr().err
        assert (tmp_path / "live" / "run.json").read_text() == before
    finally:
        live.kill()
        live.wait()
    assert status([*words, "--resume"]) == 0


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, monkeypatch):
    def recipe(name: str):
        settings = {**SETTINGS, "eval_every": 3, "output_dir": str(tmp_path), "name": name}
        return recipe_for("sft", {**settings, **DROPOUT})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=9)
    older, newest = sorted((broken / "checkpoints").iterdir())
    assert (older.name, newest.name) == ("step-00000004", "step-00000008")
    kept = (older / "state.json").read_bytes()
    flip_a_bit(newest / "optimizer.safetensors")
    (older / "state.json").unlink()
    both = "step-00000008: optimizer.safetensors is damaged; step-00000004: state.json is missing"
    with pytest.raises(BadInput, match=both):
        execute(recipe("broken"), resume=True)
    (older / "state.json").write_bytes(kept)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    results = [json.loads((run / "run.json").read_text())["results"] for run in (broken, straight)]
    assert list(results[0].items()) == list(results[1].items())
    assert (broken / "evals.jsonl").read_text() == (straight / "evals.jsonl").read_text()


def test_changed_code_is_resumed_only_if_that_is_allowed(tmp_path: Path, monkeypatch, capfd):
    addon = tmp_path / "slow.py"
    addon.write_text(SLOW)
    settings = {"output_dir": str(tmp_path), "name": "it", "eval_size": 0, "addons": [str(addon)]}
    interrupt(recipe_for("sft", {**settings, "steps": 2}), monkeypatch, step=2)
    addon.write_text(SLOW + "\n# another idea")
    words = ["run", "sft", "--output-dir", str(tmp_path), "--name", "it", "--eval-size", "0"]
    words += ["--steps", "2", "--with", str(addon), "--resume"]
    facts = json.loads((tmp_path / "it" / "run.json").read_text())
    facts["environment"]["packages"]["torch"] = "1.0"
    (tmp_path / "it" / "run.json").write_text(json.dumps(facts))
    assert status(words) == 2
    told = capfd.readouterr().err
    assert f"cannot be resumed: the code of addon {addon} has changed" in told
    assert "--allow-changes" in told
    assert json.loads((tmp_path / "it" / "run.json").read_text()) == facts
    assert status([*words, "--allow-changes"]) == 0
    assert "torch was 1.0 and is" in capfd.readouterr().out
    facts = json.loads((tmp_path / "it" / "run.json").read_text())
    assert facts["changes"] == [f"the code of addon {addon} has changed"]

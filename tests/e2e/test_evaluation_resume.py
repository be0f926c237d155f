"""An evaluation that was cut off stands once in a resumed run, and costs what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resuming import assert_same_run, ledger_of

from alignzoo.record import Record
from alignzoo.session.session import execute, recipe_for

SETTINGS = {"task": "sums", "eval_size": 4, "max_new_tokens": 8}
TRAINING = {**SETTINGS, "batch_size": 4, "steps": 4, "eval_every": 2, "checkpoint_every": 3}


def cut_off(monkeypatch, method: str, phase: str, *, after: bool) -> None:
    """Kill the run before or after this evaluation is recorded by a method of `Record`."""
    original = getattr(Record, method)
    seen: list[str] = []

    def killed(self, *args):
        rows = args[0] if method == "set_result" else list(args[0])
        now = rows if method == "set_result" else next(row["phase"] for row in rows)
        if now == phase and not after and not seen:
            raise KeyboardInterrupt
        original(self, rows, *args[1:])
        if now == phase and not seen:
            seen.append(now)
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, method, killed)


@pytest.mark.parametrize("phase", ["before", "step 2", "after"])
@pytest.mark.parametrize("torn", [False, True])
def test_rows_stand_once(tmp_path: Path, monkeypatch, phase, torn):
    def recipe(name: str):
        return recipe_for("sft", {**TRAINING, "output_dir": str(tmp_path), "name": name})

    straight = execute(recipe("straight")).folder
    with monkeypatch.context() as patch:
        cut_off(patch, "evals", phase, after=True)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe("broken"))
    broken = tmp_path / "broken"
    evals = broken / "evals.jsonl"
    if torn:
        evals.write_bytes(evals.read_bytes()[:-7])
    execute(recipe("broken"), resume=True)
    assert evals.read_text() == (straight / "evals.jsonl").read_text()
    facts = [json.loads((folder / "run.json").read_text()) for folder in (broken, straight)]
    assert facts[0]["results"] == facts[1]["results"]
    assert list(facts[0]["results"]) == list(facts[1]["results"])
    assert_same_run(broken, straight)


@pytest.mark.parametrize("last", ["set_result", "finish"])
def test_best_of_n_is_charged_for_its_answers_once(tmp_path: Path, monkeypatch, last):
    options = {"n": 2}

    def recipe(name: str):
        settings = {**SETTINGS, "options": options, "output_dir": str(tmp_path), "name": name}
        return recipe_for("best-of-n", settings)

    straight = execute(recipe("straight")).folder
    with monkeypatch.context() as patch:
        if last == "finish":
            patch.setattr(Record, "finish", interrupt)
        else:
            cut_off(patch, "set_result", "after", after=False)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe("broken"))
    broken = execute(recipe("broken"), resume=True).folder
    for name in ("total_flops", "flops", "tokens", "feedback"):
        assert ledger_of(broken)[name] == ledger_of(straight)[name]
    assert (broken / "evals.jsonl").read_text() == (straight / "evals.jsonl").read_text()


def interrupt(*args, **more):
    raise KeyboardInterrupt

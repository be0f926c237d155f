"""Runs on `totals`: episodes with the calculator, evaluated, killed and resumed."""

from __future__ import annotations

import dataclasses
import json
from itertools import count
from pathlib import Path

import pytest
from resuming import assert_same_run

from alignzoo.environments import load_environment
from alignzoo.session.session import execute, recipe_for
from alignzoo_suite.calculator_environment import CALCULATOR, Calculator

SETTINGS = {"task": "totals", "batch_size": 2, "steps": 3, "eval_size": 6, "checkpoint_every": 1}


def test_a_run_killed_in_the_middle_of_an_episode_ends_at_the_same_weights(tmp_path, monkeypatch):
    calls, last = count(), None

    def calculate(expression: str) -> str:
        if next(calls) == last:
            raise KeyboardInterrupt
        return CALCULATOR.function(expression)

    monkeypatch.setattr(Calculator, "tools", (dataclasses.replace(CALCULATOR, function=calculate),))
    settings = {**SETTINGS, "rollouts_every": 1, "learning_rate": 0.003, "output_dir": tmp_path}

    def recipe(name: str):
        return recipe_for("grpo", {**settings, "output_dir": str(tmp_path), "name": name})

    straight = execute(recipe("straight")).folder
    asked = next(calls)
    calls, last = count(), 3 * asked // 5
    with pytest.raises(KeyboardInterrupt):
        execute(recipe("broken"))
    broken = Path(tmp_path, "broken")
    assert 0 < len((broken / "metrics.jsonl").read_text().splitlines()) < 3
    last = None
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)

    rows = [json.loads(line) for line in (straight / "evals.jsonl").read_text().splitlines()]
    asking = [row for row in rows if row["measures"]["asked"]]
    assert asking and all("<tool_call>" in row["completion"] for row in asking)
    assert all(row["score"] in (0, 1) for row in rows)


def test_the_environment_takes_any_data_with_an_answer():
    environment = load_environment("calculator,explain=true")
    asked = {"prompt": "What is 3 times 4?", "answer": "3 * 4 = 12, so it is #### 12"}
    system, *example, user = environment.reset(asked)
    assert system["role"] == "system" and user["content"] == asked["prompt"]
    said = [message["content"] for message in example if message["role"] == "tool"]
    assert said == ["46", "51"] and example[-1]["content"] == "The answer is 51."
    assert environment.step("The answer is 12.").reward == 1
    assert environment.step("The answer is 13.").reward == 0
    assert load_environment("calculator").reset(asked) is None

"""Rewards inside a run: functions, several with weights, what is logged, what goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from alignzoo.cli import status
from alignzoo.errors import RunFailed
from alignzoo.rollout.rollout import summarise_completions
from alignzoo.training.loop import train

ALGORITHM = """
from dataclasses import dataclass
from alignzoo import Loss, Prompts, hookimpl

@dataclass(eq=False)
class Reinforce:
    data = Prompts
    group_size = 2

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        return batch["rewards"]

    @hookimpl
    def alignzoo_loss(self, run, batch):
        return Loss.per_sequence(-batch["advantages"] * batch.total(run.policy(batch).logprobs))
"""

FUNCTIONS = """
import math

def first(completions, prompts, a, **columns):
    assert len(completions) == len(prompts) == len(a) == len(columns["b"])
    return [None if n % 2 else float(n) for n, _ in enumerate(completions)]

async def second(completion_ids):
    return [len(ids) for ids in completion_ids]

def fails(completions, a):
    return [1 / (number - int(number)) for number in map(float, a)]

def lengths(completions, prompts):
    assert all(isinstance(prompt, list) for prompt in prompts)
    return [len(text) for text in completions]

def short(completions):
    return [1.0]

def infinite(completions, a):
    return [0.0, *[-math.inf] * (len(a) - 1)]

def huge(completions):
    return [1e38] * len(completions)

def none(completions):
    return [None] * len(completions)
"""


@pytest.fixture
def make(make_run, tmp_path: Path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(FUNCTIONS)
    (tmp_path / "reinforce.py").write_text(ALGORITHM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)

    def run(*rewards: str, **settings):
        return make_run(
            "reinforce.py",
            reward=list(rewards),
            **{"task": "sums", "steps": 1, "batch_size": 2, "max_new_tokens": 8, **settings},
        )

    return run


def sample(run):
    run.hook.alignzoo_start(run=run)
    return run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])


def test_functions_are_given_columns_and_weighed(make):
    run = make("python:own_rewards.first:2", "python:own_rewards.second:0.5", "task")
    batch = sample(run)
    first, second, task = (batch[f"reward/{name}"] for name in ("first", "second", "task"))
    assert first[::2].tolist() == [0, 2] and bool(first[1::2].isnan().all())
    assert second.tolist() == batch.lengths.tolist()
    assert torch.equal(batch["rewards"], 2 * first.nan_to_num(0) + 0.5 * second + task)
    assert run.round_metrics.numbers["rewards/first/mean"] == 1.0
    assert run.round_metrics.numbers["rewards/second/mean"] == float(batch.lengths.double().mean())
    assert run.round_metrics.numbers["completions/max_length"] == 8


def test_the_completion_of_a_dialogue_is_its_text(make, tmp_path):
    rows = [{"prompt": [{"role": "user", "content": f"count to {n}"}]} for n in range(20)]
    (tmp_path / "dialogues.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = make("python:own_rewards.lengths", task=None, data="dialogues.jsonl")
    batch = sample(run)
    assert batch["rewards"].tolist() == [len(text) for text in run.texts(batch)]
    assert max(batch["rewards"]) > 1


def test_what_is_seen_of_a_round_is_logged(make):
    run = make("length,most=2,soft=4", "task")
    run.hook.alignzoo_start(run=run)
    train(run)
    row = json.loads((run.record.folder / "metrics.jsonl").read_text())
    assert {"reward", "reward_std", "rewards/length/mean", "rewards/task/std"} <= row.keys()
    assert row["reward"] == pytest.approx(row["rewards/length/mean"] + row["rewards/task/mean"])


def test_a_completion_that_no_reward_applies_to_teaches_nothing(make):
    batch = sample(make("python:own_rewards.first"))
    assert batch["rewards"].isnan().tolist() == [False, True, False, True]
    assert batch["advantages"].tolist() == [0, 0, 2, 0]


def test_an_exception_names_the_row_that_caused_it(make):
    run = make("python:own_rewards.fails")
    with pytest.raises(RunFailed, match="ZeroDivisionError") as failure:
        sample(run)
    assert f"a={run.data.train[0].row['a']}" in failure.value.message
    assert "the completion was" in failure.value.message


def test_a_list_of_another_length_is_refused(make):
    with pytest.raises(RunFailed, match="gave 1 scores for 4 completions"):
        sample(make("python:own_rewards.short"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("infinite", "reward 'own_rewards.infinite': infinite gave -inf, which is not finite"),
        ("huge", "reward 'own_rewards.huge': huge gave 1e\\+38, which is too large"),
    ],
)
def test_a_reward_that_is_no_number_to_compute_with_is_named(make, name, says):
    with pytest.raises(RunFailed, match=says) as failure:
        sample(make(f"python:own_rewards.{name}"))
    assert "the row with" in failure.value.message and "the completion" in failure.value.message


def test_a_weight_that_makes_a_reward_too_large_is_refused(make):
    with pytest.raises(RunFailed, match="weighted reward is too large"):
        sample(make("python:own_rewards.first:1e18"))


def test_scores_of_another_shape_are_refused(make, tmp_path: Path):
    (tmp_path / "column.py").write_text(
        "from alignzoo import hookimpl\n"
        "class Column:\n"
        "    @hookimpl(wrapper=True)\n"
        "    def alignzoo_reward(self, run, batch):\n"
        "        return [score[:, None] for score in (yield)]\n"
    )
    with pytest.raises(RunFailed, match=r"shape \[4, 1\] for 4 completions"):
        sample(make("task", addons=["column.py"]))


@pytest.mark.parametrize("steps", [1, 9])
def test_a_run_in_which_no_reward_applies_fails(make, steps):
    run = make("python:own_rewards.none", steps=steps)
    run.hook.alignzoo_start(run=run)
    with pytest.raises(RunFailed, match="no reward applied to any completion in [13] step"):
        train(run)


def test_a_wrapper_that_loses_a_reward_is_named(make, tmp_path: Path):
    (tmp_path / "loses.py").write_text(
        "from alignzoo import hookimpl\n"
        "class Loses:\n"
        "    @hookimpl(wrapper=True)\n"
        "    def alignzoo_reward(self, run, batch):\n"
        "        return (yield)[:1]\n"
    )
    run = make("task", "length,most=2", addons=["loses.py"])
    with pytest.raises(
        RunFailed, match="loses.py.*'loses.py': alignzoo_reward returned 1 of 2 tensors"
    ):
        sample(run)


def test_a_wrong_reward_ends_with_exit_code_2(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reinforce.py").write_text(ALGORITHM)
    assert status(["run", "./reinforce.py", "--reward", "mth"]) == 2
    assert "unknown reward 'mth'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_summary_of_a_round_by_hand():
    nan = torch.nan
    columns = {
        "rewards": torch.tensor([[1.0, 3.0], [2.0, 2.0], [nan, nan]], dtype=torch.float64),
        "reward/a": torch.tensor([[1.0, nan], [nan, nan], [nan, nan]], dtype=torch.float64),
        "lengths": torch.tensor([[4.0, 8.0], [6.0, 6.0], [2.0, 4.0]], dtype=torch.float64),
        "ended": torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]], dtype=torch.float64),
    }
    assert summarise_completions(columns) == pytest.approx(
        {
            "reward": 2.0,
            "reward_std": (2 / 3) ** 0.5,
            "frac_reward_zero_std": 2 / 3,
            "completions/mean_length": 5.0,
            "completions/max_length": 8.0,
            "completions/mean_terminated_length": 22 / 5,
            "completions/clipped_ratio": 1 / 6,
            "rewards/a/mean": 1.0,
            "rewards/a/std": 0.0,
            "rewards/a/missing": 5 / 6,
        }
    )

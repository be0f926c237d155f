"""Safe RLHF: the multiplier by hand, and the rewards of runs with the add-on."""

from __future__ import annotations

import math

import pytest
import torch
from resuming import assert_same_run, rows_of, straight_and_broken

from alignzoo import BadInput, hookimpl
from alignzoo.session.session import execute, recipe_for
from alignzoo_zoo.safe_rlhf.addon import SafeRLHF
from alignzoo_zoo.safe_rlhf.multiplier import constrained_rewards, updated_multiplier


def test_the_rewards_by_hand():
    # (1 - 2 * 0.5) / 3 and (1 + 2 * 1) / 3.
    found = constrained_rewards(torch.tensor([1.0, 1.0]), torch.tensor([0.5, -1.0]), 2.0)
    assert found.tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(
    ("multiplier", "excess", "expected"),
    # ln lambda' = ln 2 + 0.1 * 2 * J: e^0.1 times as large, e^-0.2 times, and the largest.
    [(2.0, 0.5, 2.2103418), (2.0, -1.0, 1.6374615), (2.0, 100.0, 5.0), (0.1, -1e4, 0.0)],
)
def test_the_multiplier_by_hand(multiplier, excess, expected):
    found = updated_multiplier(multiplier, excess, 0.1, 5.0)
    assert found == pytest.approx(expected, abs=1e-7) and found > 0


SETTINGS = {
    "task": "sums", "batch_size": 2, "max_new_tokens": 40, "eval_size": 2,
    "reward": ["task", "length:1,most=30,soft=10"],
    "addons": ["safe-rlhf,cost=length,limit=0.1"],
}  # fmt: skip


class Watch:
    def __init__(self):
        self.columns = []

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        batch = yield
        self.columns.append({name: column.clone() for name, column in batch.columns.items()})
        return batch


def test_the_rewards_of_a_round_are_constrained(make_run):
    run = make_run("rloo", **SETTINGS, options={"group_size": 2, "beta": 0.0})
    run.plugins.register(watch := Watch())
    run.hook.alignzoo_start(run=run)
    run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    [columns] = watch.columns
    reward, cost = columns["reward/task"], -columns["reward/length"]
    mean = float(cost.mean())
    multiplier = math.exp(0.1 * (mean - 0.1))  # from 1
    expected = (reward - multiplier * cost) / (1 + multiplier)
    assert columns["rewards"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    first, second = columns["rewards"].view(-1, 2).unbind(1)
    assert columns["advantages"][::2].tolist() == pytest.approx((first - second).tolist(), abs=1e-6)
    assert run.round_metrics.numbers["safe_rlhf/cost"] == pytest.approx(mean)
    assert run.round_metrics.numbers["safe_rlhf/multiplier"] == pytest.approx(multiplier)


def test_the_multiplier_is_a_part_of_the_state(tmp_path, monkeypatch):
    settings = {**SETTINGS, "steps": 4, "checkpoint_every": 2, "output_dir": str(tmp_path)}
    settings |= {"options": {"group_size": 2}, "learning_rate": 0.003}

    def recipe(name):
        return recipe_for("grpo", {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=3)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    multipliers = [row["safe_rlhf/multiplier"] for row in rows_of(straight)]
    assert len(set(multipliers)) == 4


@pytest.mark.parametrize("algorithm", ["grpo", "dpo"])
def test_a_cost_that_is_no_reward_is_refused(tmp_path, algorithm):
    settings = {**SETTINGS, "addons": ["safe-rlhf,cost=harm"], "output_dir": str(tmp_path / "runs")}
    if algorithm == "dpo":
        del settings["reward"]
    with pytest.raises(BadInput, match="cost=harm is none of the rewards") as refused:
        execute(recipe_for(algorithm, {**settings, "steps": 1}))
    assert "--reward harm:-1" in refused.value.message
    assert not list((tmp_path / "runs").glob("*"))


def test_rewards_that_are_not_summed_are_refused(make_run):
    run = make_run("grpo", **SETTINGS, options={"normalize_rewards": "before"})
    with pytest.raises(BadInput, match="--normalize-rewards"):
        run.hook.alignzoo_start(run=run)


def test_a_multiplier_above_the_largest_is_refused():
    with pytest.raises(BadInput, match="multiplier=9 is above largest=5"):
        SafeRLHF("harm", multiplier=9.0)

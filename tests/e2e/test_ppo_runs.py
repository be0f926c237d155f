"""PPO on zoo-tiny: its update, in any micro-batches, and after a resume."""

from __future__ import annotations

import pytest
import torch
from resuming import assert_same_run, result_of, rows_of, straight_and_broken
from test_grpo_runs import SETTINGS, assert_same_from_any_split, logged, move

from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train

OPTIONS = {"group_size": 3, "round_prompts": 8, "iterations": 2, "beta": 0.1}


class Halves:
    """A reward that applies to every second completion only."""

    @hookimpl
    def alignzoo_reward(self, run, batch):
        scores = torch.linspace(-1, 1, len(batch.tokens))
        scores[1::2] = float("nan")
        return scores


@pytest.mark.parametrize("values", ["shared", "own"])
def test_the_update_does_not_depend_on_micro_batches(make_run, monkeypatch, values):
    options = {**OPTIONS, "values": values}
    run = make_run("ppo", options=options, **SETTINGS, max_grad_norm=1e9, learning_rate=0.1)
    run.recipe.warmup = 0.0
    move(run, scale=0.01)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    batch.columns["has_reward"][::5] = False
    move(run, seed=2)
    assert_same_from_any_split(run, monkeypatch, batch)


@pytest.mark.parametrize("values", ["shared", "own"])
def test_at_learning_rate_0_nothing_changes(make_run, values):
    run = make_run("ppo", options={**OPTIONS, "values": values}, **SETTINGS, steps=6)
    run.learning_rate = 0.0
    train(run)
    rows = logged(run)
    assert len(rows) == 6 and run.round == 2
    for row in rows:
        assert row["policy/clipfrac_avg"] == row["val/clipfrac_avg"] == 0.0
        assert row["val/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert row["policy/approxkl_avg"] < 1e-10
        assert abs(row["objective/kl"]) < 1e-4
        assert row["objective/scores"] == pytest.approx(row["reward"])
        assert row["loss"] == pytest.approx(
            row["loss/policy_avg"] + 0.1 * row["loss/value_avg"], abs=1e-6
        )
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    with torch.no_grad():
        assert (run.policy(batch).logprobs - batch["logprobs"]).abs().max() < 1e-5


def test_advantages_are_made_of_score_kl_and_values(make_run):
    options = {**OPTIONS, "missing_eos_penalty": 0.5, "lam": 1.0}
    run = make_run("ppo", options=options, **SETTINGS)
    move(run, scale=0.03)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert 0 < batch["ended"].sum() < 12
    with torch.no_grad():
        kl = run.policy(batch).logprobs - run.reference(batch).logprobs
        torch.testing.assert_close(batch["values"], run.values(batch), atol=1e-5, rtol=0)
    assert batch["values"].abs().max() > 0.01
    # With gamma = lambda = 1 a return is the sum of all later rewards.
    score = batch["rewards"] - 0.5 * ~batch["ended"]
    ahead = kl.flip(1).cumsum(1).flip(1)
    expected = torch.where(batch.mask, score[:, None] - 0.1 * ahead, 0.0)
    torch.testing.assert_close(batch["returns"], expected, atol=1e-4, rtol=0)
    advantages = batch["advantages"][batch.mask]
    assert abs(advantages.mean()) < 1e-5
    assert advantages.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert run.round_metrics.numbers["objective/kl"] == pytest.approx(
        float(kl.sum(1).mean()), abs=1e-4
    )
    assert run.round_metrics.numbers["objective/rlhf_reward"] == pytest.approx(
        float((score - 0.1 * kl.sum(1)).mean()), abs=1e-4
    )


def test_completions_without_a_reward_are_left_out(make_run):
    run = make_run("ppo", options=OPTIONS, **SETTINGS)
    for plugin in [p for n, p in run.plugins.list_name_plugin() if n.startswith("reward ")]:
        run.plugins.unregister(plugin)
    run.plugins.register(Halves(), "reward halves")
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert batch["has_reward"].tolist() == [True, False] * 6
    loss = run.hook.alignzoo_loss(run=run, batch=batch)
    assert loss.count == batch.mask[::2].sum()
    whitened = batch["advantages"][::2][batch.mask[::2]]
    assert whitened.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert not batch["advantages"][1::2].any()
    assert run.round_metrics.numbers["objective/scores"] == pytest.approx(
        float(torch.linspace(-1, 1, 12)[::2].mean()), abs=1e-6
    )


@pytest.mark.parametrize("values", ["shared", "own"])
def test_interrupted_and_resumed_is_the_same_run(tmp_path, monkeypatch, values):
    """It is interrupted in the middle of a round, with an adaptive coefficient."""
    options = {**OPTIONS, "values": values, "kl_target": 0.01, "kl_horizon": 100}
    settings = {
        **SETTINGS, "options": options, "steps": 10, "eval_size": 4, "checkpoint_every": 2,
        "rollouts_every": 1,
        "output_dir": str(tmp_path),
    }  # fmt: skip

    def recipe(name: str):
        return recipe_for("ppo", {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=8)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    assert len({row["objective/kl_coef"] for row in rows_of(broken)}) == 3  # once a round
    assert not any(".value" in name for name in result_of(broken))


@pytest.mark.parametrize(
    "changes", [{"adapter": "none"}, {"adapter": "prefix"}, {"gradient_checkpointing": True}]
)
def test_own_values_need_a_second_adapter(make_run, changes):
    with pytest.raises(BadInput, match="needs an adapter in the layers"):
        make_run("ppo", options={"values": "own"}, **SETTINGS, **changes)

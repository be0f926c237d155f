"""Iterative reasoning DPO on zoo-tiny: pairs of a round by their rewards."""

from __future__ import annotations

import math

import pytest
import torch
from resuming import assert_taken_up_in_the_middle

from alignzoo import hookimpl
from alignzoo.rollout import complete

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 40}
OPTIONS = {"group_size": 3, "round_prompts": 6}  # 3 steps a round


class Given:
    """Rewards the completions of a round with these numbers, in order."""

    def __init__(self, rewards: list[float]):
        self.rewards = rewards

    @hookimpl(wrapper=True)
    def alignzoo_reward(self, run, batch):
        yield
        return [torch.tensor(self.rewards)]


def test_correct_completions_are_paired_with_wrong_ones(make_run):
    run = make_run("irpo", **SETTINGS, options={**OPTIONS, "pairs": 2})
    run.plugins.register(Given([1, 0, 1, 1, 1, 1, 0, 0, 1, math.nan, 0, math.nan]))
    run.hook.alignzoo_start(run=run)
    rows = run.data.train[:4]
    drawn = [[c.tokens for c in group] for group in complete(run, rows, 3)]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    places = [(0, 0), (0, 1), (0, 2), (0, 1), (2, 2), (2, 0), (2, 2), (2, 1)]
    assert batch.completions() == [drawn[b][n] for b, n in places]
    assert batch["rewards"].tolist() == [1, 0] * 4
    assert len(batch) == 4 and [row["a"] for row in batch.rows] == [
        rows[b].row["a"] for b in (0, 0, 2, 2)
    ]
    assert run.round_metrics.numbers["frac_pairs_tied"] == pytest.approx(0.5)
    with torch.no_grad(), run.model.evaluating():
        assert torch.allclose(batch["opponent"], run.policy(batch).logprobs, atol=1e-5)
        loss = run.hook.alignzoo_loss(run=run, batch=batch)
        nll = -batch.pairs(batch.mean(run.policy(batch).logprobs))[0]
    assert loss.mean == pytest.approx(math.log(2) + float(nll.mean()), abs=1e-4)


def test_a_round_without_a_pair_changes_nothing(make_run):
    run = make_run("irpo", **SETTINGS, options=OPTIONS)
    run.plugins.register(Given([1.0] * 6))
    run.hook.alignzoo_start(run=run)
    assert len(run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])) == 0


def test_an_interrupted_round_is_taken_up_in_its_middle(tmp_path, monkeypatch):
    settings = {**SETTINGS, "options": OPTIONS}
    assert_taken_up_in_the_middle("irpo", settings, tmp_path, monkeypatch)

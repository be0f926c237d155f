"""RAFT on zoo-tiny: it trains on the kept completions, and a round may keep none."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

from alignzoo import hookimpl
from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 40}


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def test_the_best_completion_of_each_prompt_is_trained_on(make_run):
    run = make_run("raft", options={"group_size": 3}, **SETTINGS, steps=2)
    before = weights(run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert len(batch) == 4 and batch.group.tolist() == [0, 1, 2, 3]
    assert run.round_metrics.numbers["raft/kept"] == pytest.approx(1 / 3)
    assert (
        run.round_metrics.numbers["raft/reward"]
        == batch["rewards"].mean()
        >= run.round_metrics.numbers["reward"]
    )
    train(run)
    rows = logged(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 and row["entropy"] > 0 for row in rows)
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())


def test_only_completions_above_the_threshold_are_trained_on(make_run):
    options = {"group_size": 6, "keep": "threshold", "threshold": 1.0}
    run = make_run("raft", options=options, **SETTINGS)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert 0 < batch["rewards"].numel() < 24
    assert set(batch["rewards"].tolist()) == {1.0} == {run.round_metrics.numbers["raft/reward"]}


def test_a_round_without_completions_changes_nothing(make_run):
    """Steps are logged, but neither the loss nor Adam's momentum changes a weight."""
    options = {"group_size": 2, "round_prompts": 8, "keep": "threshold", "threshold": 0.0}
    run = make_run("raft", options=options, **SETTINGS, steps=6, schedule="constant")
    seen = []

    class Watch:
        @hookimpl
        def alignzoo_step(self, run, step, metrics):
            seen.append(weights(run))
            run.algorithm.threshold = 2.0 if step == 2 else 0.0  # the second round keeps nothing

    run.plugins.register(Watch())
    train(run)
    rows = logged(run)
    assert [row["raft/kept"] for row in rows] == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert [row["loss"] > 0 for row in rows] == [True, True, False, False, True, True]
    moved = [
        any(not torch.equal(one[name], other[name]) for name in one)
        for one, other in pairwise(seen)
    ]
    assert moved == [True, False, False, True, True]
    assert "raft/reward" not in rows[2]


def test_a_kl_penalty_changes_the_ranking(make_run):
    run = make_run("raft", options={"group_size": 4, "beta": 1e3}, **SETTINGS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    everything = {}

    class Before:
        @hookimpl
        def alignzoo_reward(self, run, batch):
            everything["batch"] = batch
            return torch.zeros(len(batch.tokens))

    run.plugins.register(Before(), "reward zero")
    kept = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    batch = everything["batch"]
    with torch.no_grad():
        kl = batch.total(run.policy(batch).logprobs - run.reference(batch).logprobs)
    best = batch.groups(kl).argmin(1)
    expected = batch.groups(batch.lengths)[torch.arange(4), best]
    assert kept.lengths.tolist() == expected.tolist()

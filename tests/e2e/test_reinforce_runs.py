"""REINFORCE and REINFORCE++ on zoo-tiny: rounds of one completion or of groups, and resumed."""

from __future__ import annotations

import json

import pytest
import torch
from resuming import Interrupts

from alignzoo import BadInput
from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 40}


@pytest.mark.parametrize(
    ("options", "dimensions"),
    [
        ({"group_size": 1, "baseline": "none"}, 1),
        ({"group_size": 1, "loss_type": "plus-plus", "iterations": 2}, 2),
        ({"group_size": 4, "loss_type": "plus-plus-baseline"}, 2),
    ],
)
def test_it_trains_on_its_samples(make_run, options, dimensions):
    run = make_run("reinforce", options=options, **SETTINGS, steps=2)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert batch["advantages"].shape == batch.tokens.shape[:dimensions]
    if dimensions == 2:
        tokens = batch["advantages"][batch.mask].double()
        assert abs(tokens.mean()) < 1e-5 and tokens.var(correction=0) == pytest.approx(1.0)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    train(run)
    rows = [json.loads(x) for x in (run.record.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["entropy"] > 0 and "kl" in row and "reward" in row for row in rows)
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())


def test_the_moving_baseline_is_resumed(make_run):
    options = {"group_size": 2, "baseline": "moving"}
    settings = {**SETTINGS, "options": options, "steps": 4, "checkpoint_every": 2}
    whole = make_run("reinforce", **settings, name="whole")
    train(whole)
    assert whole.state_of(whole.algorithm)["baseline"] != 0.0
    part = make_run("reinforce", **settings, name="part")
    part.plugins.register(Interrupts(3))
    with pytest.raises(KeyboardInterrupt):
        train(part)
    part.record.close()
    again = make_run("reinforce", **settings, name="part", resume=True)
    train(again)
    assert again.state_of(again.algorithm) == whole.state_of(whole.algorithm)
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in whole.model.named_parameters())


def test_several_steps_on_one_sample_are_refused(make_run):
    with pytest.raises(BadInput, match="--round-prompts"):
        make_run("reinforce", options={"round_prompts": 8}, **SETTINGS)

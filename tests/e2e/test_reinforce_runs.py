"""REINFORCE and REINFORCE++ on zoo-tiny: rounds of one completion or of groups, and resumed."""

from __future__ import annotations

import json

import pytest
import torch
from resuming import Interrupts

from alignzoo import BadInput
from alignzoo.rollout import complete_greedily
from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 40}


@pytest.mark.parametrize(
    ("options", "dimensions"),
    [
        ({"group_size": 1, "baseline": "none"}, 1),
        ({"group_size": 3, "baseline": "length"}, 1),
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


@pytest.mark.parametrize("baseline", ["moving", "greedy"])
def test_a_baseline_is_resumed(make_run, baseline):
    options = {"group_size": 2, "baseline": baseline}
    settings = {**SETTINGS, "options": options, "steps": 4, "checkpoint_every": 2}
    whole = make_run("reinforce", **settings, name="whole")
    train(whole)
    assert whole.state_of(whole.algorithm).get("baseline") != 0.0
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


def test_remax_draws_greedily_and_is_charged_for_it(make_run):
    """The greedy completion costs about what one more sample does, and its reward one more call."""
    spent = {}
    for baseline, size in (("greedy", 2), ("none", 2), ("none", 3)):
        options = {"group_size": size, "baseline": baseline, "beta": 0.0}
        run = make_run("reinforce", options=options, **SETTINGS)
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
        calls = run.ledger.feedback["verifier_calls"]
        spent[baseline, size] = (batch, run.ledger.tokens["generation"], calls)
        assert run.recipe.temperature == 1.0
    batch, tokens, calls = spent["greedy", 2]
    plain, fewer, fewer_calls = spent["none", 2]
    assert torch.equal(batch.tokens, plain.tokens)  # the samples are the same
    assert calls == fewer_calls + 4 == spent["none", 3][2]
    assert fewer < tokens < 1.2 * spent["none", 3][1]
    assert torch.equal(batch["advantages"], batch["rewards"] - batch["greedy"])
    # The greedy completion is that of evaluation at temperature 0: the same for both samples.
    assert torch.equal(batch["greedy"][0::2], batch["greedy"][1::2])
    alone = make_run("reinforce", options={"baseline": "none"}, **{**SETTINGS, "temperature": 0.5})
    (first,), *_ = complete_greedily(alone, alone.data.train[:4])
    (again,), *_ = complete_greedily(alone, alone.data.train[:4], "another stream")
    assert first.tokens == again.tokens and alone.recipe.temperature == 0.5


def test_several_steps_on_one_sample_are_refused(make_run):
    with pytest.raises(BadInput, match="--round-prompts"):
        make_run("reinforce", options={"round_prompts": 8}, **SETTINGS)

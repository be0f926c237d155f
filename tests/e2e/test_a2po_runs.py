"""A*-PO on zoo-tiny: values that are estimated once, and prompts that are left out."""

from __future__ import annotations

import math

import pytest
import torch
from resuming import assert_taken_up_in_the_middle

from alignzoo import hookimpl

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 40}


class Given:
    """Rewards completions: those of the policy, one a prompt, and those of the reference, two."""

    def __init__(self, policy: list[float], reference: list[float]):
        self.policy, self.reference = policy, reference

    @hookimpl(wrapper=True)
    def alignzoo_reward(self, run, batch):
        yield
        own = len(batch.tokens) == len(batch)
        return [torch.tensor(self.policy if own else self.reference)]


def test_a_value_is_estimated_once_and_an_unsolved_prompt_is_left_out(make_run):
    run = make_run("a2po", **SETTINGS, options={"value_samples": 2})
    run.plugins.register(Given([1.0, 1.0, math.nan], [1, 0, 0, 0, 0, 1]))
    run.hook.alignzoo_start(run=run)
    rows = run.data.train[:3]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    value = 0.5 * math.log((math.exp(2) + 1) / 2)
    assert [row["a"] for row in batch.rows] == [rows[0].row["a"]]  # the others: 0, and no reward
    assert batch["value"].tolist() == pytest.approx([value])
    assert batch["advantages"].tolist() == pytest.approx([1 - value])
    assert run.round_metrics.numbers["a2po/skipped"] == pytest.approx(2 / 3)
    first = run.ledger.tokens["generation"]
    again = run.hook.alignzoo_sample(run=run, rows=rows)
    assert torch.equal(again["value"], batch["value"])
    assert run.ledger.tokens["generation"] < 1.6 * first  # a third of it is of the policy


def test_an_unsolved_prompt_is_kept_if_asked(make_run):
    options = {"value_samples": 2, "skip_unsolved": False}
    run = make_run("a2po", **SETTINGS, options=options)
    run.plugins.register(Given([1.0, 0.0], [0, 0, 0, 0]))
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert batch["advantages"].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    with torch.no_grad():  # the policy is the reference
        assert run.hook.alignzoo_loss(run=run, batch=batch).mean == pytest.approx(0.5, abs=1e-4)


def test_an_interrupted_round_is_taken_up_in_its_middle(tmp_path, monkeypatch):
    settings = {**SETTINGS, "options": {"round_prompts": 6, "value_samples": 2}}
    assert_taken_up_in_the_middle("a2po", settings, tmp_path, monkeypatch)

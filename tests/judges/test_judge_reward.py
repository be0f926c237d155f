"""`--reward judge` in whole runs."""

from __future__ import annotations

import json
import math

import pytest
import torch
from judge_stub import Stub, serving, text

from alignzoo.errors import BadInput
from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 8, "options": {"group_size": 2}}


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_base_can_judge_its_run(make_run):
    run = make_run("grpo", reward=["judge"], steps=2, **SETTINGS)
    run.hook.alignzoo_start(run=run)
    train(run)
    assert all(-1 <= row["rewards/judge/mean"] <= 1 for row in logged(run))
    assert run.ledger.feedback["judge_calls"] == 2 * run.schedule.rows_per_round * 2
    assert run.ledger.feedback["verifier_calls"] == 0
    assert run.ledger.flops["judge"] > 0


def test_gold_is_the_tasks_score_mapped_to_minus_one_to_one(make_run):
    run = make_run("grpo", reward=["judge,judge=gold", "task"], **SETTINGS)
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    scores = batch["reward/task"].clamp(0, 1)
    assert torch.allclose(batch["reward/judge"], 2 * scores - 1, atol=1e-6)


def test_an_answer_that_is_no_rating_has_no_effect(make_run):
    stub = Stub(lambda body: text("who knows"))
    with serving(stub) as url:
        run = make_run("grpo", reward=[f"judge,judge={url},question=Is it right?"], **SETTINGS)
        run.hook.alignzoo_start(run=run)
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert all(map(math.isnan, batch["reward/judge"].tolist()))
    assert not batch["advantages"].any()
    assert "Is it right?" in stub.asked[0]["messages"][0]["content"]


def test_a_judge_that_is_down_is_bad_input(make_run):
    run = make_run("grpo", reward=["judge,judge=http://127.0.0.1:9/v1"], **SETTINGS)
    with pytest.raises(BadInput, match="no answer from"):
        run.hook.alignzoo_start(run=run)

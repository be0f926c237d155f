"""SPPO on zoo-tiny: win rates by rewards or a judge, against the policy that began a round."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from resuming import assert_taken_up_in_the_middle, rows_of

from alignzoo import hookimpl
from alignzoo.errors import BadInput, RunFailed
from alignzoo.training.loop import train
from alignzoo_judges import Judge
from alignzoo_judges.judge import unusable

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 40}
OPTIONS = {"group_size": 3, "round_prompts": 6, "eta": 20.0}  # 3 steps a round
REWARD = """
from alignzoo import RowReward

class Made(RowReward):
    "These scores, one after the other."

    def __init__(self):
        self.asked = 0

    def score(self, row, completion):
        self.asked += 1
        return {scores}[(self.asked - 1) % {count}]
"""


@pytest.fixture
def made(tmp_path: Path):
    def write(scores: list[float | None]) -> list[str]:
        path = tmp_path / "made.py"
        path.write_text(REWARD.format(scores=scores, count=len(scores)))
        return [str(path)]

    return write


class Watch:
    """Record the batch of each round, and its log-probs under the policy at the start."""

    def __init__(self):
        self.batches, self.policy = [], []

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        batch = yield
        self.batches.append(batch)
        with torch.no_grad(), run.model.evaluating():
            self.policy.append(run.policy(batch, temperature=run.temperature).logprobs)
        return batch


def started(run):
    run.hook.alignzoo_start(run=run)
    return run


def test_the_opponent_is_the_policy_at_the_start_of_the_round(make_run):
    run = make_run(
        "sppo", **SETTINGS, options=OPTIONS, steps=6, temperature=0.8, learning_rate=0.003
    )
    started(run).plugins.register(watch := Watch())
    train(run)
    assert len(watch.batches) == 2
    for batch, policy in zip(watch.batches, watch.policy, strict=True):
        assert torch.allclose(batch["opponent"], policy, atol=1e-5)
        assert torch.allclose(batch["opponent"], batch["logprobs"], atol=1e-4)  # as it was drawn
        assert len(batch) == 6 and len(batch.tokens) == 18
    rows = rows_of(run.record.folder)
    # Before the first step every log-ratio is 0: the loss is the mean of (eta (P - 1/2))^2.
    order = torch.Generator().manual_seed(run.seed_for("minibatches", 0, 0))
    first = watch.batches[0].select(torch.randperm(6, generator=order).tolist()[:2])
    expected = (20.0 * (first["win_rate"] - 0.5)).square().mean()
    assert rows[0]["loss"] == pytest.approx(float(expected), rel=1e-3)
    assert {"rewards/accuracies", "entropy", "reward", "completions/mean_length"} <= rows[0].keys()
    assert "sampling/sampling_logp_difference/mean" in rows[0]


def test_win_rates_are_of_the_rewards(make_run, made):
    scores = [1.0, 0.0, 0.0, 3.0, None, 3.0, None, 2.0, None]
    run = make_run("sppo", reward=made(scores), **SETTINGS, options={**OPTIONS, "scale": 2.0})
    batch = started(run).hook.alignzoo_sample(run=run, rows=run.data.train[:3])
    p = 1 / (1 + math.exp(-2.0))
    # One completion of the second prompt has no reward; the third has one reward, and no opponent.
    expected = [p, (1 - p + 0.5) / 2, (1 - p + 0.5) / 2, 0.5, 0.5]
    assert batch["win_rate"].tolist() == pytest.approx(expected)
    assert len(batch) == 2 and batch["opponent"].shape == batch.tokens.shape
    assert run.round_metrics.numbers["reward"] == pytest.approx(9 / 6)


def test_win_rates_are_of_the_judge(make_run):
    run = make_run("sppo", **SETTINGS, options={**OPTIONS, "judge": "gold"})
    batch = started(run).hook.alignzoo_sample(run=run, rows=run.data.train[:6])
    rows = [batch.rows[b] for b in batch.group.tolist()]
    scores = [run.task.score(row, t) for row, t in zip(rows, run.texts(batch), strict=True)]
    scores = batch.groups(torch.tensor(scores, dtype=torch.float))
    better = (scores[:, :, None] - scores[:, None, :]).sign()
    assert torch.allclose(batch.groups(batch["win_rate"]), better.sum(-1) / 4 + 0.5)
    assert run.ledger.feedback["judge_calls"] <= 6 * 3 * 2
    assert run.ledger.feedback["verifier_calls"] == 0  # the task's own reward is not asked
    assert run.round_metrics.numbers["reward"] == pytest.approx(0.5)


class Silent(Judge):
    def answers(self, questions):
        for number, question in enumerate(questions):
            assert "Which is kinder?" in question.messages[0]["content"]
            yield number, unusable(question)


def test_a_judge_needs_no_reward_and_unanswered_questions_are_left_out(make_run, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Add {n} and 1."}) + "\n" for n in range(4)))
    settings = {**SETTINGS, "task": None, "data": str(path), "temperature": 3.0}
    options = {**OPTIONS, "round_prompts": 2, "judge": "self", "question": "Which is kinder?"}
    run = started(make_run("sppo", **settings, options=options, steps=1))
    run.algorithm.loaded_judge = Silent()
    run.algorithm.loaded_judge.ledger = run.ledger
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    with pytest.raises(RunFailed, match="no reward applied"):
        train(run)
    assert run.ledger.feedback["judge_calls"] == 2 * 3 * 2
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": None, "data": "PROMPTS"}, "needs a preference signal"),
        ({"options": {"judge": "gold"}, "reward": ["task"]}, "does not read --reward"),
        ({"temperature": 0.0}, "identical"),
        ({"options": {"eta": 0}}, "eta"),
        ({"options": {"group_size": 1}}, "group-size"),
    ],
)
def test_bad_input(make_run, tmp_path, settings, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Add 1 and 2."}\n' * 4)
    if settings.get("data"):
        settings = {**settings, "data": str(path)}
    with pytest.raises(BadInput, match=message):
        make_run("sppo", **{**SETTINGS, **settings})


def test_a_round_is_resumed_in_its_middle(tmp_path, monkeypatch):
    settings = {**SETTINGS, "options": OPTIONS}
    assert_taken_up_in_the_middle("sppo", settings, tmp_path, monkeypatch)

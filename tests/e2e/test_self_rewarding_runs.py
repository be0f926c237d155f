"""Self-rewarding on zoo-tiny: pairs by the ratings of the current policy."""

from __future__ import annotations

import math

import pytest
import torch
from resuming import assert_taken_up_in_the_middle, rows_of

from alignzoo import hookimpl
from alignzoo.errors import BadInput, RunFailed
from alignzoo.rollout import complete
from alignzoo.training.loop import train
from alignzoo_judges import Judge
from alignzoo_judges.judge import unusable

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 40}
OPTIONS = {"group_size": 3, "round_prompts": 6}  # 3 steps a round


def tokens_of(batch) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]


class Ratings(Judge):
    """Answers with these ratings from 1 to 10 in order; None is no answer."""

    def __init__(self, given: list[int | None]):
        self.given = given

    def answers(self, questions):
        for number, question in enumerate(questions):
            rating = self.given[number]
            answer = [float(str(rating) == option) for option in question.options]
            yield number, unusable(question) if rating is None else answer


def test_best_and_worst_by_own_ratings_are_the_pair(make_run):
    run = make_run("self-rewarding", **SETTINGS, options=OPTIONS)
    run.hook.alignzoo_start(run=run)
    rows = run.data.train[:4]
    drawn = [[c.tokens for c in group] for group in complete(run, rows, 3)]
    given = [3, 9, 1, 5, 5, 5, None, 2, 8, None, 4, None]
    run.algorithm.judge = Ratings(given)
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    expected = [(drawn[0][1], drawn[0][2]), (drawn[2][2], drawn[2][1])]
    expected = [pair for pair in expected if pair[0] != pair[1]]
    found = tokens_of(batch)
    assert list(zip(found[::2], found[1::2], strict=True)) == expected and expected
    assert run.round_metrics.numbers["frac_pairs_tied"] == pytest.approx(1 - len(expected) / 4)
    assert run.round_metrics.numbers["frac_unrated"] == pytest.approx(3 / 12)
    known = [2 * (r - 1) / 9 - 1 for r in given if r is not None]
    assert run.round_metrics.numbers["reward"] == pytest.approx(sum(known) / len(known), abs=1e-6)


class Watch:
    def __init__(self):
        self.batches, self.policy, self.first = [], [], []

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        judge = run.algorithm.judge
        question = [(rows[0].row, "the very same text")]
        from alignzoo_judges import rate

        self.first.append(rate(judge, question)[0])
        batch = yield
        self.batches.append(batch)
        with torch.no_grad(), run.model.evaluating():
            self.policy.append(run.policy(batch).logprobs)
        return batch


def test_the_policy_of_the_round_judges_and_is_the_reference(make_run):
    run = make_run("self-rewarding", **SETTINGS, options=OPTIONS, steps=6, learning_rate=0.01)
    run.hook.alignzoo_start(run=run)
    run.plugins.register(watch := Watch())
    train(run)
    for batch, policy in zip(watch.batches, watch.policy, strict=True):
        assert torch.allclose(batch["opponent"], policy, atol=1e-5)
    assert watch.first[0] != pytest.approx(watch.first[1], abs=1e-4)  # it rates otherwise by now
    rows = rows_of(run.record.folder)
    for index in (0, 3):
        assert rows[index]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert run.ledger.feedback["judge_calls"] == 2 * (6 * 3 + 1)
    assert run.ledger.feedback["verifier_calls"] == 0
    assert run.ledger.flops["judge"] > 0


def test_without_ratings_nothing_is_learned(make_run):
    run = make_run("self-rewarding", **SETTINGS, options=OPTIONS, steps=3)
    run.hook.alignzoo_start(run=run)
    run.algorithm.judge = Ratings([None] * 18)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    with pytest.raises(RunFailed, match="no reward applied"):
        train(run)
    rows = rows_of(run.record.folder)
    assert [(row["loss"], row["frac_unrated"], row["frac_pairs_tied"]) for row in rows] == [
        (0.0, 1.0, 1.0)
    ] * 2
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": ["task"]}, "its own judge"),
        ({"temperature": 0.0}, "identical"),
        ({"options": {"beta": 0}}, "beta"),
    ],
)
def test_bad_input(make_run, settings, message):
    with pytest.raises(BadInput, match=message):
        make_run("self-rewarding", **{**SETTINGS, **settings})


def test_a_round_is_resumed_in_its_middle(tmp_path, monkeypatch):
    settings = {**SETTINGS, "options": OPTIONS}
    assert_taken_up_in_the_middle("self-rewarding", settings, tmp_path, monkeypatch)

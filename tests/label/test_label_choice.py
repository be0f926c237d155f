"""Which pair comes next: the ensemble learns from answers, and double Thompson sampling uses it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from label_fakes import rows_of

from alignzoo.ui import Silent
from alignzoo_label.answers import AnswerFile, text_of
from alignzoo_label.candidates import read_prompts
from alignzoo_label.choice import AtRandom, Undecided
from alignzoo_label.ensemble import TRIES, double_thompson, fit_ensemble, start_ensemble
from alignzoo_label.session import Session
from alignzoo_label.source import Source
from alignzoo_label.writer import Writer


def make_problem(answers: int, size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States of better and worse completions by a hidden direction, and other states."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(size, generator=generator)
    pairs = torch.randn(answers, 2, size, generator=generator) * 3 + 1  # (n, 2, H)
    order = (pairs @ hidden).argsort(1, descending=True)  # (n, 2)
    better, worse = pairs.gather(1, order[..., None].expand(-1, -1, size)).unbind(1)
    return better, worse, hidden


def test_heads_that_have_learned_nothing_disagree():
    states = torch.randn(500, 8, generator=torch.Generator().manual_seed(1)) * 5 + 2
    scores = start_ensemble(states, 64, seed=0).scores(states)  # (M, N)
    assert scores.std() == pytest.approx(1, abs=0.1)
    assert scores.mean(0).std() < 0.3  # the mean of 64 heads prefers nothing


def test_an_ensemble_learns_from_answers_and_grows_certain():
    better, worse, _ = make_problem(200)
    prior = start_ensemble(torch.cat([better, worse]), 16, seed=0)
    test_better, test_worse, _ = (x[100:] if x.ndim > 1 else x for x in make_problem(200))
    accuracies, spreads = [], []
    for answers in (0, 5, 100):
        fitted = fit_ensemble(prior, better[:answers], worse[:answers], seed=0)
        margins = fitted.scores(test_better) - fitted.scores(test_worse)  # (M, n)
        accuracies.append(float((margins.mean(0) > 0).float().mean()))
        spreads.append(float((margins > 0).float().std(0).mean()))
    assert accuracies[0] < accuracies[2] and accuracies[2] > 0.9
    assert spreads[0] > spreads[1] > spreads[2]


def test_the_bootstrap_of_an_answer_stays_when_others_follow():
    rows = [torch.rand(n, 16, generator=torch.Generator().manual_seed(0))[:5] for n in (5, 40, 300)]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


def test_double_thompson_shows_the_best_of_two_heads():
    scores = torch.eye(4)[[0, 0, 0, 2]]  # three heads prefer 0, one prefers 2; none 1 or 3
    generator = torch.Generator().manual_seed(0)
    pairs = Counter(double_thompson(scores, generator) for _ in range(400))
    assert set(pairs) <= {(0, 2), (2, 0), (0, 1), (0, 3)}
    # All of TRIES heads prefer 0 as the first does: rarely enough.
    assert pairs[0, 1] + pairs[0, 3] <= 400 * 0.75**TRIES + 2
    assert pairs[0, 2] / 400 == pytest.approx(0.75, abs=0.08)


def test_heads_of_one_mind_are_given_any_other_completion():
    scores = torch.eye(4)[[1, 1]]
    generator = torch.Generator().manual_seed(0)
    pairs = Counter(double_thompson(scores, generator) for _ in range(300))
    assert set(pairs) == {(1, 0), (1, 2), (1, 3)}
    assert min(pairs.values()) > 60


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer("zoo-tiny", temperature=None, max_new_tokens=12, trust_remote_code=False)


def draw(writer: Writer, pairs: int, size: int, seed: int = 0, states: bool = False) -> list:
    prompts = read_prompts(None, "style", Silent())
    return list(writer.draw(prompts, seed, pairs, size, states=states))


def test_a_seed_gives_the_same_prompts_and_completions_in_every_session(writer):
    first = draw(writer, 10, 2)
    assert [one.key for one in draw(writer, 3, 2)] == [one.key for one in first[:3]]
    assert [one.key for one in draw(writer, 3, 2, seed=1)] != [one.key for one in first[:3]]
    assert all("topic" in one.columns for one in first)  # which the gold score reads


def test_a_state_depends_on_its_completion_alone(writer):
    (one,) = draw(writer, 1, 4, states=True)
    assert one.states.shape == (len(one.completions), 2 * 128)
    last = replace(one, completions=one.completions[-1:])
    assert torch.allclose(writer.with_states(last).states, one.states[-1:], atol=1e-4)
    long = replace(one, completions=(one.completions[0] * 1000,))
    assert writer.with_states(long).states.isfinite().all()


def test_undecided_learns_in_the_background_from_all_answers_on_the_disk(writer, tmp_path):
    path = tmp_path / "a.jsonl"
    source = Source(iter(draw(writer, 12, 4, states=True)), 2)
    source.start()
    source.wait_for(100)
    session = Session(AnswerFile(path, "pairs"), source, AtRandom(), repeat=0.0, seed=0)
    for _ in range(8):  # the longer one is better
        showing = session.current("ann")
        left, right = map(len, showing.shown)
        session.answer("ann", showing.id, "left" if left > right else "right")
    choice = Undecided(seed=0)
    choice.fit(session.answers.rows(), source.made)
    assert choice.fitted == 8
    by_key = {one.key: one for one in source.made}
    agreed = 0
    for row in rows_of(path):
        one = by_key[row["item"]]
        scores = choice.ensemble.scores(one.states).mean(0)
        chosen, rejected = (
            one.completions.index(text_of(row[side])) for side in ("chosen", "rejected")
        )
        agreed += bool(scores[chosen] > scores[rejected])
    assert agreed >= 7
    later = Session(AnswerFile(path, "pairs"), source, choice, repeat=0.0, seed=0)
    assert len(set(later.current("bob").shown)) == 2

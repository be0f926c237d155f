"""A judge that answers with something else than probabilities or a text is named."""

from __future__ import annotations

import pytest

from alignzoo import RunFailed
from alignzoo_judges import Judge, Question, rate
from alignzoo_judges.cached import CachedJudge

NAN, INF = float("nan"), float("inf")
ASKED = [Question([{"role": "user", "content": f"{n}?"}], ("A", "B")) for n in range(2)]


class Mine(Judge):
    identity = "mine"

    def __init__(self, *given):
        self.given = given

    def answers(self, questions):
        yield from self.given

    def texts(self, dialogues, max_new_tokens):
        return self.given


WRONG = {
    "[5, -1] for the options A, B: they are not probabilities": [(0, [5, -1]), (1, [1.0, 0.0])],
    "[0.9, 0.9]": [(0, [0.9, 0.9]), (1, [1.0, 0.0])],
    "[inf, 0.0]": [(0, [INF, 0.0]), (1, [1.0, 0.0])],
    "[nan, 1.0]": [(0, [NAN, 1.0]), (1, [1.0, 0.0])],
    "[1.0] for the options A, B: 1 numbers": [(0, [1.0]), (1, [1.0, 0.0])],
    "'AB' for the options A, B: not a list of numbers": [(0, "AB"), (1, [1.0, 0.0])],
    "no answer to question 1 of 2": [(0, [1.0, 0.0])],
    "a second answer, or one to no question: 0": [(0, [1.0, 0.0]), (0, [1.0, 0.0])],
    "one to no question: 7": [(7, [1.0, 0.0])],
    "failed: TypeError": [3],
}


@pytest.mark.parametrize("says", WRONG)
@pytest.mark.parametrize("cached", [False, True])
def test_what_are_no_probabilities(says, cached, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    judge = CachedJudge(Mine(*WRONG[says])) if cached else Mine(*WRONG[says])
    with pytest.raises(RunFailed) as failure:
        judge.ask(ASKED)
    message = failure.value.message
    assert says in message and "judge 'Mine': answers " in message
    assert f"{__file__}, line " in message


def test_unusable_and_rounded_answers_are_fine():
    found = [(1, [0.3333, 0.6666]), (0, [NAN, NAN])]
    assert Mine(*found).ask(ASKED)[1] == [0.3333, 0.6666]


def test_a_rating_that_is_not_finite_has_no_way_in():
    with pytest.raises(RunFailed, match="they are not probabilities"):
        rate(Mine((0, [INF] * 10)), [({"prompt": "a"}, "b")])


def test_what_is_no_text():
    with pytest.raises(RunFailed, match="judge 'Mine': texts gave None instead of a text"):
        Mine((0, None)).write([[]], 5)

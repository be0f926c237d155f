"""The cache of answers: damage is noticed, and a cached answer costs what it cost at first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judge_stub import Stub, serving, text, used

from alignzoo.ledger import Ledger
from alignzoo_judges import Question, resolve_judge
from alignzoo_judges.judge import Answer, Judge, Usage

OPTIONS = ("A", "B")
QUESTIONS = [Question([{"role": "user", "content": str(n)}], OPTIONS) for n in range(4)]


class Counting(Judge):
    """A judge as a plugin writes it, whose nth answer costs n + 1 of everything."""

    def __init__(self, ledger: Ledger | None = None):
        self.identity, self.ledger, self.asked = "counting", ledger, 0

    def answers(self, questions):
        for i, question in reversed(list(enumerate(questions))):
            n = int(question.messages[0]["content"])
            self.asked += 1
            yield Answer(i, [n / 8, 1 - n / 8], Usage(n + 1.0, n + 1, n + 1))

    def price(self, usage):
        return usage.written / 10


@pytest.fixture
def notes() -> list[str]:
    return []


def cached(notes: list[str], monkeypatch) -> tuple[Counting, Judge, Ledger]:
    judge, ledger = Counting(), Ledger()
    monkeypatch.setattr("alignzoo_judges.resolve.make_judge", lambda *_: judge)
    return judge, resolve_judge("counting", ledger=ledger, note=notes.append), ledger


def bill(ledger: Ledger) -> tuple:
    return ledger.flops["judge"], ledger.tokens["judge"], ledger.money, ledger.feedback


EXPECTED = [[n / 8, 1 - n / 8] for n in range(4)]


def test_a_cached_answer_costs_what_it_cost_when_it_was_computed(notes, monkeypatch):
    first, judge, cold = cached(notes, monkeypatch)
    assert judge.ask(QUESTIONS) == EXPECTED
    again, judge, warm = cached(notes, monkeypatch)
    assert judge.ask(QUESTIONS) == EXPECTED
    assert (first.asked, again.asked) == (4, 0)
    assert bill(warm) == bill(cold)
    assert bill(cold)[:3] == (10, 20, pytest.approx(1.0))
    assert set(cold.saved.values()) == {0}
    assert warm.saved == {"flops": 10, "tokens": 20, "money": cold.money, "judge_calls": 4}
    # A question that stands twice is asked once, and counted as it is from the cache.
    twice, judge, ledger = cached(notes, monkeypatch)
    judge.file.unlink()
    judge.known.clear()
    judge.ask([QUESTIONS[3], QUESTIONS[3]])
    assert (twice.asked, ledger.flops["judge"], ledger.saved["flops"]) == (1, 8, 4)
    assert notes == []


def test_a_price_that_has_changed_is_the_one_of_the_run():
    asked = [Question([], OPTIONS)]
    with serving(Stub(lambda body: used(text("A"), 1000, 10))) as url:
        money = []
        for price in (1, 3):
            ledger = Ledger()
            resolve_judge(f"{url},price_in={price}", ledger=ledger).ask(asked)
            money.append((ledger.money, ledger.saved["money"]))
    assert money == [(0.001, 0.0), (0.003, 0.003)]


def change_a_digit(line: str) -> str:
    return line.replace("0.25", "0.75")


def change_the_cost(line: str) -> str:
    return line.replace("[3.0, 3, 3]", "[9.0, 3, 3]")


def take_another_question(line: str) -> str:
    key = json.loads(line)["question"]
    return line.replace(key, key[1:] + key[:1])


def leave_out_the_digest(line: str) -> str:
    return json.dumps({k: v for k, v in json.loads(line).items() if k != "sha256"})


HARMS = [
    change_a_digit,
    change_the_cost,
    take_another_question,
    leave_out_the_digest,
    lambda line: line[: len(line) // 2],
    lambda line: line.replace("answer", "amswer"),
    lambda line: "\x00" * len(line),
    lambda line: "[1, 2]",
]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_line_is_asked_again_and_said(notes, monkeypatch, harm):
    cached(notes, monkeypatch)[1].ask(QUESTIONS)
    file = cached(notes, monkeypatch)[1].file
    lines = file.read_text().splitlines()
    (which,) = (n for n, line in enumerate(lines) if "0.25" in line)
    changed = harm(lines[which])
    assert changed != lines[which]
    file.write_text("".join(f"{line}\n" for line in [*lines[:which], changed, *lines[which + 1 :]]))
    judge, asking, ledger = cached(notes, monkeypatch)
    assert asking.ask(QUESTIONS) == EXPECTED
    assert judge.asked == 1 and ledger.flops["judge"] == 10
    assert [note for note in notes if "1 line damaged" in note and str(file) in note] == notes
    assert len(notes) == 1
    # It is deleted: the next run has nothing to say.
    assert cached(notes, monkeypatch)[1].ask(QUESTIONS) == EXPECTED and len(notes) == 1


def test_a_line_that_a_crash_cut_does_not_spoil_the_next_one(notes, monkeypatch):
    cached(notes, monkeypatch)[1].ask(QUESTIONS[:2])
    file = cached(notes, monkeypatch)[1].file
    file.write_bytes(file.read_bytes()[:-1])  # the end of the last line
    cached(notes, monkeypatch)[1].ask(QUESTIONS)
    judge, asking, _ = cached(notes, monkeypatch)
    assert asking.ask(QUESTIONS) == EXPECTED and judge.asked == 0


def test_a_cache_that_cannot_be_written_is_a_note(notes, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file" / "cache"))
    judge, asking, ledger = cached(notes, monkeypatch)
    assert asking.ask(QUESTIONS) == EXPECTED == asking.ask(QUESTIONS)
    assert judge.asked == 4 and ledger.flops["judge"] == 20
    assert len(notes) == 1 and "cannot be cached: NotADirectoryError" in notes[0]

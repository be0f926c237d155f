"""What a round's sampling made is written part by part, and taken up where it was left."""

from __future__ import annotations

import json

import pytest

from alignzoo.ledger import Cost
from alignzoo_judges.journal import PART, journal

ROWS = list(range(2 * PART + 5))


class Maker:
    """Squares of rows; `fails` is the part at which the machine dies."""

    def __init__(self, run, fails: int | None = None):
        self.run, self.fails, self.asked = run, fails, []

    def __call__(self, part, start):
        if start == self.fails:
            raise KeyboardInterrupt
        self.asked.append(start)
        self.run.ledger.charge("generation", Cost(len(part), 2 * len(part)))
        self.run.ledger.use_feedback("judge_calls", 1)
        return [{"row": row, "square": row**2} for row in part]


@pytest.fixture
def run(make_run):
    return make_run("grpo", task="sums", model="zoo-tiny", name="kept")


def lines_of(run):
    return (run.record.folder / "squares.jsonl").read_text().splitlines()


def spent(run):
    ledger = run.ledger
    return ledger.flops["generation"], ledger.tokens["generation"], ledger.feedback["judge_calls"]


def test_lines_are_readable_and_parts_are_closed(run):
    found = journal(run, "squares", ROWS, Maker(run))
    assert found == [{"row": row, "square": row**2} for row in ROWS]
    lines = [json.loads(line) for line in lines_of(run)]
    assert lines[1] == {"round": 0, "row": 1, "square": 1}
    assert [line["part"] for line in lines if "spent" in line] == [0, PART, 2 * PART]
    assert [len(ROWS), 2 * len(ROWS), 3] == [*spent(run)]


def test_what_is_there_is_read_and_charged_the_same(run):
    first = journal(run, "squares", ROWS, Maker(run))
    bill = spent(run)
    run.ledger.restore({})
    again = Maker(run)
    assert journal(run, "squares", ROWS, again) == first
    assert again.asked == [] and spent(run) == bill


def test_it_goes_on_where_it_was_stopped(run):
    with pytest.raises(KeyboardInterrupt):
        journal(run, "squares", ROWS, Maker(run, fails=2 * PART))
    run.ledger.restore({})
    rest = Maker(run)
    assert journal(run, "squares", ROWS, rest) == [{"row": row, "square": row**2} for row in ROWS]
    assert rest.asked == [2 * PART] and spent(run) == (len(ROWS), 2 * len(ROWS), 3)


@pytest.mark.parametrize("cut", [1, 3, 40, 300])
def test_a_part_that_was_cut_off_is_made_again(run, cut):
    journal(run, "squares", ROWS, Maker(run))
    file = run.record.folder / "squares.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    rest = Maker(run)
    assert journal(run, "squares", ROWS, rest) == [{"row": row, "square": row**2} for row in ROWS]
    assert rest.asked == [2 * PART]
    rows = [json.loads(line) for line in lines_of(run)]
    assert [row["row"] for row in rows if "row" in row] == ROWS


def test_rounds_are_told_apart_and_texts_may_hold_anything(run):
    def text(part, start):
        return [{"text": f"{run.round} \u2028\n \U0001f600"} for _ in part]

    for index in (0, 1):
        run.schedule.round = index
        journal(run, "squares", ROWS[:3], text)
    for index in (0, 1):
        run.schedule.round = index
        found = journal(run, "squares", ROWS[:3], Maker(run))
        assert found == [{"text": f"{index} \u2028\n \U0001f600"}] * 3

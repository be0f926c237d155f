"""A journal is written part by part, and resumed after the last complete part."""

from __future__ import annotations

import json

import pytest

from alignzoo.ledger import Cost
from alignzoo_judges.journal import ROWS_PER_PART, keep_journal

ROWS = list(range(2 * ROWS_PER_PART + 5))
SQUARES = [{"row": row, "square": row**2} for row in ROWS]


class Maker:
    """Squares of rows; the process dies at the part that starts at `fails`."""

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


def test_lines_are_readable_and_each_part_ends_with_its_cost(run):
    found = keep_journal(run, "squares", ROWS, Maker(run))
    assert found == SQUARES
    lines = [json.loads(line) for line in lines_of(run)]
    assert lines[1] == {"round": 0, "row": 1, "square": 1}
    assert [line["part"] for line in lines if "spent" in line] == [
        0,
        ROWS_PER_PART,
        2 * ROWS_PER_PART,
    ]
    assert [len(ROWS), 2 * len(ROWS), 3] == [*spent(run)]


def test_complete_parts_are_read_and_charged_the_same(run):
    first = keep_journal(run, "squares", ROWS, Maker(run))
    bill = spent(run)
    run.ledger.restore({})
    again = Maker(run)
    assert keep_journal(run, "squares", ROWS, again) == first
    assert again.asked == [] and spent(run) == bill


def test_it_continues_after_the_last_complete_part(run):
    with pytest.raises(KeyboardInterrupt):
        keep_journal(run, "squares", ROWS, Maker(run, fails=2 * ROWS_PER_PART))
    run.ledger.restore({})
    rest = Maker(run)
    assert keep_journal(run, "squares", ROWS, rest) == [
        {"row": row, "square": row**2} for row in ROWS
    ]
    assert rest.asked == [2 * ROWS_PER_PART] and spent(run) == (len(ROWS), 2 * len(ROWS), 3)


@pytest.mark.parametrize("cut", [1, 3, 40, 300])
def test_a_part_that_was_cut_off_is_computed_again(run, cut):
    keep_journal(run, "squares", ROWS, Maker(run))
    file = run.record.folder / "squares.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    rest = Maker(run)
    assert keep_journal(run, "squares", ROWS, rest) == [
        {"row": row, "square": row**2} for row in ROWS
    ]
    assert rest.asked == [2 * ROWS_PER_PART]
    rows = [json.loads(line) for line in lines_of(run)]
    assert [row["row"] for row in rows if "row" in row] == ROWS


def flip_a_digit(lines):
    return [line.replace('"square": 4}', '"square": 5}') for line in lines]


def swap_two(lines):
    return [lines[1], lines[0], *lines[2:]]


def change_the_cost(lines):
    return [line.replace('"generation": 64', '"generation": 46') for line in lines]


def lose_the_end(lines):
    return [*lines[:ROWS_PER_PART], *lines[ROWS_PER_PART + 1 :]]


def spoil_the_end(lines):
    return [*lines[:ROWS_PER_PART], "{", *lines[ROWS_PER_PART + 1 :]]


@pytest.mark.parametrize(
    "harm", [flip_a_digit, swap_two, change_the_cost, lose_the_end, spoil_the_end]
)
def test_only_a_damaged_part_is_computed_again(run, harm):
    keep_journal(run, "squares", ROWS, Maker(run))
    file = run.record.folder / "squares.jsonl"
    lines = lines_of(run)
    # The second part has the same cost: only the first is harmed.
    harmed = [*harm(lines[: ROWS_PER_PART + 1]), *lines[ROWS_PER_PART + 1 :]]
    assert harmed != lines
    file.write_text("".join(f"{line}\n" for line in harmed))
    bill, notes = spent(run), []
    run.ledger.restore({})
    run.ui.note = notes.append
    rest = Maker(run)
    assert keep_journal(run, "squares", ROWS, rest) == SQUARES
    assert rest.asked == [0] and spent(run) == bill
    assert notes == [f"{file}: 1 damaged part left out"]
    assert keep_journal(run, "squares", ROWS, Maker(run)) == SQUARES and len(notes) == 1


def test_rounds_are_kept_apart_and_any_text_survives(run):
    def text(part, start):
        return [{"text": f"{run.round} \u2028\n \U0001f600"} for _ in part]

    for index in (0, 1):
        run.schedule.round = index
        keep_journal(run, "squares", ROWS[:3], text)
    for index in (0, 1):
        run.schedule.round = index
        found = keep_journal(run, "squares", ROWS[:3], Maker(run))
        assert found == [{"text": f"{index} \u2028\n \U0001f600"}] * 3

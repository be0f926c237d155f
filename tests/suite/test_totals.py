"""Sums with a calculator: the tool, the writers, and what the model may say."""

import pytest

from alignzoo_suite.abacus import Abacus
from alignzoo_suite.calculator import REFUSAL, calculate
from alignzoo_suite.common import rng
from alignzoo_suite.totals import Totals
from alignzoo_suite.totals_writer import (
    BASE,
    DEMONSTRATOR,
    FAULTLESS,
    AskingHabits,
    copy_number,
    guess,
    write_call,
    write_dialogue,
)

NUMBERS = [384, 57, 612]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("384 + 57", "441"),
        ("384+57", "441"),
        (" 12 * 34 ", "408"),
        ("5 - 12", "-7"),
        ("-5 - -12", "7"),
        ("384 + 57 + 612", REFUSAL),
        ("384", REFUSAL),
        ("384 + ", REFUSAL),
        ("1.5 + 2", REFUSAL),
        ("2 ** 9", REFUSAL),
        ("9" * 13 + " * 2", REFUSAL),
        ("__import__('os')", REFUSAL),
        ("", REFUSAL),
    ],
)
def test_results_by_hand(expression: str, result: str) -> None:
    assert calculate(expression) == result


def test_a_dialogue_without_faults() -> None:
    assert write_dialogue(NUMBERS, FAULTLESS, rng(0)) == [
        {"role": "assistant", "content": write_call("384 + 57")},
        {"role": "tool", "content": "441"},
        {"role": "assistant", "content": write_call("441 + 612")},
        {"role": "tool", "content": "1053"},
        {"role": "assistant", "content": "The answer is 1053."},
    ]


@pytest.mark.parametrize(
    ("habits", "said"),
    [
        ({"guess": 1}, ["The answer is 1050."]),  # 380 + 60 + 610
        ({"stop": 1}, [write_call("384 + 57"), "441", "The answer is 441."]),
        (
            {"crowd": 1, "despair": 1},
            [write_call("384 + 57 + 612"), REFUSAL, "The answer is 1050."],
        ),
    ],
)
def test_bad_habits(habits: dict[str, float], said: list[str]) -> None:
    dialogue = write_dialogue(NUMBERS, AskingHabits(**vars(FAULTLESS) | habits), rng(0))
    assert [message["content"] for message in dialogue] == said


def test_a_slip_changes_one_digit() -> None:
    slips = AskingHabits(**vars(FAULTLESS) | {"slip": 1})
    found = {copy_number(57, slips, rng(index)) for index in range(200)}
    assert found == {10 * tens + 7 for tens in (1, 2, 3, 4, 6, 7, 8, 9)} | {
        50 + ones for ones in (1, 2, 3, 4, 5, 6, 8, 9)
    }


def test_a_guess_is_near_and_mostly_wrong() -> None:
    rows = Totals().rows("prompts", "train")
    off = [guess(row["numbers"]) - row["answer"] for row in rows]
    assert max(map(abs, off)) <= 20
    assert off.count(0) / len(off) < 0.12


@pytest.mark.parametrize(("habits", "low", "high"), [(BASE, 0.3, 0.42), (DEMONSTRATOR, 0.88, 0.96)])
def test_how_often_the_writers_are_right(habits: AskingHabits, low: float, high: float) -> None:
    task = Totals()
    rows = task.rows("prompts", "train")
    scores = [
        task.score(row, write_dialogue(row["numbers"], habits, rng(index))[-1]["content"])
        for index, row in enumerate(rows)
    ]
    assert low < sum(scores) / len(scores) < high


def test_the_score_and_the_measures_of_an_answer() -> None:
    row = {"answer": 1053}
    asked = write_call("384 + 57") + "\n441\nThe answer is 441."
    assert Totals().score(row, "The answer is 1053.") == 1
    assert Totals().score(row, asked) == 0
    assert Totals().measures(row, asked) == {"asked": 1, "calls": 1}
    assert Totals().measures(row, "The answer is 1053.") == {"asked": 0, "calls": 0}


def test_the_training_data_is_by_the_hasty_writer() -> None:
    rows = Abacus(demonstrations=400).rows("demonstrations", "train")
    guesses = sum(len(row["completion"]) == 1 for row in rows)
    assert 0.45 < guesses / len(rows) < 0.65
    assert {row["completion"][-1]["role"] for row in rows} == {"assistant"}

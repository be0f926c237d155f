"""The verifier of `sums` and its worked steps."""

from random import Random

import pytest

from alignzoo_suite.sums import (
    Slips,
    Sums,
    list_problems,
    read_answer,
    split_worked_steps,
    work_out,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7 + 5 = 12, write 2, carry 1. 2 + 1 + 1 = 4. The answer is 42.", 42),
        ("The answer is 42", 42),
        ("42", 42),
        ("27 + 15 = 42", 42),
        ("The sum of 27 and 15 is **42**.", 42),
        ("Answer: 42\nI hope that helps, ask me 100 more!", 42),
        ("The answer is 27 + 15 = 42.", 42),
        ("The answer is $\\boxed{42}$.", 42),
        ("The answer is 42. Check: 42 - 15 = 27.", 42),
        ("The answer is 41. No, wait. The answer is 42.", 42),
        ("The answer is 1,042.", 1042),
        ("The answer is 42.0", 42),
        ("The answer is 42.5.", 42.5),
        ("The answer is -42.", -42),
        ("The answer is 41 or 42 or 43.", 43),
        ("The answer is:\n\n42", 42),
        ("The answer is forty-two.", None),
        ("The answer is 4", 4),
        ("", None),
        ("no idea", None),
        ("4" * 10_000, None),
    ],
)
def test_final_answer(text: str, expected: float | None) -> None:
    assert read_answer(text) == expected


def test_the_score_is_exact() -> None:
    row = {"a": 27, "b": 15}
    assert Sums().score(row, "The answer is 42.") == 1.0
    for wrong in ("The answer is 41.", "The answer is 4", "The answer is 42.5.", "", "42 41 40"):
        assert Sums().score(row, wrong) == 0.0


def test_worked_steps_without_a_slip() -> None:
    never = Slips(off=0, forgotten=0)
    steps = work_out(27, 15, never, Random(0))
    assert steps == "7 + 5 = 12, write 2, carry 1. 2 + 1 + 1 = 4. The answer is 42."
    for a, b in list_problems(held_out=True):
        assert read_answer(work_out(a, b, never, Random(0))) == a + b


def test_steps_after_a_slip_are_consistent_with_it() -> None:
    # 12 becomes 11 or 13, the carry is lost, and 2 + 1 + 0 = 3 becomes 2 or 4.
    always = work_out(27, 15, Slips(off=1, forgotten=1), Random(0))
    assert "carry 0. 2 + 1 + 0 = " in always
    assert read_answer(always) in {21, 23, 41, 43}


@pytest.mark.parametrize(
    ("a", "b", "right"),
    [
        (21, 15, 0.8 * (0.8 * 0.8 + 0.2 * 0.1)),  # no carry: one is made up with 0.2
        (27, 15, 0.8 * (0.4 * 0.8 + 0.6 * 0.1)),  # a carry: forgotten with 0.6
    ],
)
def test_how_often_it_comes_out_right(a: int, b: int, right: float) -> None:
    random, slips = Random(0), Slips(off=0.2, forgotten=0.6)
    found = sum(read_answer(work_out(a, b, slips, random)) == a + b for _ in range(4000)) / 4000
    assert found == pytest.approx(right, abs=0.025)  # three standard errors


def test_splits_are_disjoint_whichever_way_round() -> None:
    problems = {held_out: list_problems(held_out=held_out) for held_out in (False, True)}
    train, held_out = ({frozenset(problem) for problem in problems[which]} for which in problems)
    assert not train & held_out
    assert sum(map(len, problems.values())) == 90 * 90


@pytest.mark.parametrize("seed", [0, 1])
def test_no_prompt_or_demonstration_of_dev_has_a_problem_of_test(seed: int) -> None:
    def problems(view: str, split: str) -> set[frozenset[int]]:
        return {frozenset((row["a"], row["b"])) for row in Sums(seed).rows(view, split)}

    test = problems("prompts", "test")
    assert len(test) >= 100
    for view in ("prompts", "demonstrations", "preferences"):
        assert not test & problems(view, "dev") and not test & problems(view, "train")


def test_demonstrations_have_a_few_slips() -> None:
    task = Sums()
    rows = task.rows("demonstrations", "train")
    right = sum(task.score(row, row["completion"][0]["content"]) for row in rows) / len(rows)
    assert 0.9 <= right <= 0.95


def test_a_step_is_labelled_right_if_it_is_what_the_sum_asks_for() -> None:
    rows = Sums(steps=400).rows("steps", "train")
    assert all(len(row["completions"]) == len(row["labels"]) == 3 for row in rows)
    for row in rows:
        # The last step is right if the answer is, and two slips may undo each other.
        assert row["labels"][2] == Sums().score(row, row["completions"][2])
    shares = [sum(row["labels"][i] for row in rows) / 400 for i in range(3)]
    assert all(0.3 < share < 0.7 for share in shares)
    first = "7 + 5 = 12, write 2, carry 1."
    assert split_worked_steps(f"{first} 2 + 1 + 1 = 4. The answer is 42.")[0] == first

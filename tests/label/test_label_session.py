"""Who sees what: every prompt once, repeats with sides swapped, undo, several people."""

from __future__ import annotations

import json

import pytest
from label_fakes import make_candidates, make_session, rows_of

from alignzoo import BadInput
from alignzoo.ui import Silent
from alignzoo_label.candidates import read_candidates
from alignzoo_label.session import Session
from alignzoo_label.source import Source
from alignzoo_label.summary import describe, next_commands, summarise


def answer_all(session: Session, who: str, better: str = "good") -> int:
    """Prefer the completion that begins with a word, until nothing is left; return how many."""
    count = 0
    while showing := session.current(who):
        verdict = "left" if showing.shown[0].startswith(better) else "right"
        assert session.answer(who, showing.id, verdict)
        count += 1
    return count


def test_a_tenth_of_the_pairs_comes_back_swapped_and_is_not_trained_on(tmp_path):
    path = tmp_path / "a.jsonl"
    session = make_session(path, make_candidates(30), repeat=0.1)
    assert answer_all(session, "ann") == 33
    trained, rest = rows_of(path), rows_of(tmp_path / "a.rest.jsonl")
    assert len({row["item"] for row in trained}) == len(trained) == 30
    by_id = {row["id"]: row for row in trained}
    for row in rest:
        earlier = by_id[row["repeats"]]
        shown = [earlier[side][0]["content"] for side in ("chosen", "rejected")]
        assert row["completions"] == (shown[::-1] if earlier["first"] == "chosen" else shown)
    summary = summarise(session.answers.rows())
    assert (summary.agreed, summary.repeats) == (3, 3)
    assert sum(summary.verdicts.values()) == 30


def test_who_always_takes_the_left_agrees_with_no_repeat(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(10), repeat=0.5)
    answer_all(session, "ann", better="")
    summary = summarise(session.answers.rows())
    assert (summary.agreed, summary.repeats, summary.left) == (0, 5, 1.0)
    assert "same answer to swapped repeats: 0 of 5" in describe(summary)


def test_the_next_commands_fit_what_there_is(tmp_path):
    path = tmp_path / "my prefs.jsonl"
    session = make_session(path, make_candidates(3))
    answer_all(session, "ann")
    dpo, kto, reward, judge = next_commands(
        path, session.answers.rows(), "pairs", "zoo-tiny", "style"
    )
    expected = f"alignzoo run dpo --data '{path}' --model zoo-tiny --task style"
    assert dpo == f"{expected} --epochs 6 --batch-size 8"
    assert kto.startswith("alignzoo run kto") and reward.startswith("alignzoo run reward")
    assert judge == f"alignzoo judge --judge MODEL --data '{path}'"
    many = session.answers.rows() * 400
    assert next_commands(path, many, "pairs", "zoo-tiny", "style")[0] == expected
    assert (
        next_commands(path, many, "ratings", None, None)[0] == f"alignzoo run kto --data '{path}'"
    )


def test_sides_are_shuffled(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(40))
    answer_all(session, "ann")
    left = summarise(session.answers.rows()).left
    assert 0.25 < left < 0.75


def test_people_share_the_prompts_and_see_none_that_another_looks_at(tmp_path):
    path = tmp_path / "a.jsonl"
    session = make_session(path, make_candidates(6))
    ann, bob = session.current("ann"), session.current("bob")
    assert ann.item != bob.item
    assert session.current("ann") == ann
    assert not session.answer("bob", ann.id, "left")
    assert answer_all(session, "bob") == 5
    assert answer_all(session, "ann") == 1
    assert len({row["item"] for row in rows_of(path)}) == 6


def test_an_answer_counts_once_and_only_if_there_is_such_a_verdict(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(2))
    showing = session.current("ann")
    with pytest.raises(ValueError, match="best"):
        session.answer("ann", showing.id, "best")
    assert session.answer("ann", showing.id, "left")
    assert not session.answer("ann", showing.id, "right")
    assert len(session.answers.rows()) == 1


def test_undo_shows_the_same_pair_again_and_then_what_was_before_it(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(3))
    first = session.current("ann")
    session.answer("ann", first.id, "left")
    second = session.current("ann")
    assert session.undo("ann")
    again = session.current("ann")
    assert (again.item, again.shown) == (first.item, first.shown)
    assert session.answer("ann", again.id, "right")
    assert session.current("ann") == second
    assert session.undo("ann") and not session.undo("ann")


def test_a_new_session_goes_on_with_what_is_not_answered(tmp_path):
    path = tmp_path / "a.jsonl"
    session = make_session(path, make_candidates(5))
    for _ in range(3):
        session.answer("ann", session.current("ann").id, "left")
    later = make_session(path, make_candidates(5))
    assert later.answered() == 3
    assert later.undo("ann")  # also what was answered in the session before
    assert answer_all(later, "ann") == 3


def test_a_session_ends_when_its_model_fails(tmp_path):
    def fail():
        yield from make_candidates(1)
        raise RuntimeError("out of memory")

    source = Source(fail(), 2)
    source.start()
    assert not source.wait_for(2)
    assert (len(source.made), str(source.error)) == (1, "out of memory")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "q", "completions": ["a", "b", "b"]}],
        [{"prompt": "q", "chosen": "a", "rejected": "b"}],
        [{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "b"}],
        [{"prompt": "q", "completions": ["a", " ", "\ud800", "b"]}],
    ],
)
def test_completions_are_read_from_the_usual_columns(tmp_path, rows):
    rows.append({**rows[0], "prompt": "alike"})
    for name in ("completions", "chosen", "rejected", "completion"):
        if name in rows[-1]:
            rows[-1][name] = ["same", "same"] if name == "completions" else "same"
    (one,) = read_candidates(write(tmp_path / "c.jsonl", rows), 2, Silent())
    assert (one.prompt, one.completions) == ("q", ("a", "b"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completions": ["a", "b"]}, "prompt"),
        ({"prompt": "q"}, "no completions in this row"),
        ({"prompt": "q", "completions": [1, 2]}, "neither text nor messages"),
        ({"prompt": "q", "completions": ["a"]}, "enough different completions"),
    ],
)
def test_a_file_without_completions_is_refused(tmp_path, row, message):
    with pytest.raises(BadInput, match=message):
        read_candidates(write(tmp_path / "c.jsonl", [row]), 2, Silent())

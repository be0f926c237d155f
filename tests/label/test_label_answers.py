"""The file of answers: training reads it, several may append, and nothing in it is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from label_fakes import make_candidates, make_session, rows_of

from alignzoo import BadInput
from alignzoo.data import Feedback, Preferences, load_rows
from alignzoo.training.loop import train
from alignzoo_label.answers import AnswerFile, answer_row, shown_in, verdict_of

ROW = {"id": "1", "item": "i", "who": "ann", "seed": 0, "prompt": "q", "note": "", "columns": {}}


def make_row(verdict: str = "left", shown: tuple[str, ...] = ("a", "b"), **changes: object) -> dict:
    return answer_row(**{**ROW, "verdict": verdict, "shown": shown, "repeats": None, **changes})[0]


@pytest.mark.parametrize(("verdict", "better", "worse"), [("left", "a", "b"), ("right", "b", "a")])
def test_a_preference_is_a_row_for_training_and_says_what_was_shown(verdict, better, worse):
    row = make_row(verdict, note="why")
    assert (row["chosen"], row["rejected"], row["note"]) == (better, worse, "why")
    assert shown_in(row) == ("a", "b")
    assert verdict_of(row) == verdict


def test_answers_to_messages_are_messages(tmp_path):
    prompt = [{"role": "user", "content": "q"}]
    row = make_row(prompt=prompt, columns={"tools": [{"name": "t"}]})
    assert row["chosen"] == [{"role": "assistant", "content": "a"}]
    assert row["tools"] == [{"name": "t"}]
    assert shown_in(row) == ("a", "b")


def test_dpo_and_kto_read_the_files_as_they_are(tmp_path):
    pairs = make_session(tmp_path / "pairs.jsonl", make_candidates(6))
    for verdict in ("left", "tie", "right", "both-bad", "skip", "left"):
        pairs.answer("ann", pairs.current("ann").id, verdict)
    rows, report = load_rows(Preferences, str(tmp_path / "pairs.jsonl"))
    assert (len(rows), report.left_out) == (3, {})
    rest = rows_of(tmp_path / "pairs.rest.jsonl")
    assert [row["verdict"] for row in rest] == ["tie", "both-bad", "skip"]

    ratings = make_session(tmp_path / "ratings.jsonl", make_candidates(3), mode="ratings")
    for verdict in ("good", "bad", "skip"):
        ratings.answer("ann", ratings.current("ann").id, verdict)
    rows, _ = load_rows(Feedback, str(tmp_path / "ratings.jsonl"))
    assert [row["label"] for row in rows] == [True, False]


@pytest.mark.parametrize("algorithm", ["dpo", "reward", "kto"])
def test_a_step_is_trained_on_the_file_as_it_is(tmp_path, make_run, algorithm):
    path = tmp_path / "a.jsonl"
    session = make_session(path, make_candidates(8))
    for verdict in ("left", "right", "tie", "left", "skip", "right", "left", "left"):
        session.answer("ann", session.current("ann").id, verdict)
    run = make_run(algorithm, data=str(path), task=None, steps=1, batch_size=2, eval_size=1)
    train(run)
    assert run.step == 1


def test_a_row_is_flushed_to_the_disk_once(tmp_path, monkeypatch):
    answers = AnswerFile(tmp_path / "a.jsonl", "pairs")
    answers.append(make_row(), trains=True)
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    answers.append(make_row(), trains=True)
    assert len(flushed) == 1


@pytest.mark.parametrize("torn", [b'{"id": "2", "pro', "{'id': 'ü".encode()[:-1]])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    answers = AnswerFile(tmp_path / "a.jsonl", "pairs")
    answers.append(make_row(), trains=True)
    with answers.path.open("ab") as file:
        file.write(torn)
    answers.check()
    assert [row["id"] for row in answers.rows()] == ["1"]
    answers.append(make_row(id="3"), trains=True)
    assert [row["id"] for row in rows_of(answers.path)] == ["1", "3"]


def test_a_last_line_without_its_end_is_kept(tmp_path):
    answers = AnswerFile(tmp_path / "a.jsonl", "pairs")
    answers.path.write_text(json.dumps(make_row()), encoding="utf-8")  # as some editors save it
    answers.check()
    answers.append(make_row(id="2"), trains=True)
    assert [row["id"] for row in rows_of(answers.path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"prompt": "q", "chosen": "a", "rejected": "b"}\n'),
        ("a.jsonl", "my notes\n"),
        ("a.jsonl", "my notes"),
        ("a.jsonl", json.dumps(make_row("good", ("a",))) + "\n"),  # ratings
        ("a.rest.jsonl", "{}\n"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_and_left_alone(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="not an answer"):
        AnswerFile(tmp_path / "a.jsonl", "pairs").check()
    assert (tmp_path / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["a.json", "none/a.jsonl"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(BadInput):
        AnswerFile(tmp_path / name, "pairs").check()


def test_undo_takes_the_last_answer_of_that_person_and_no_byte_more(tmp_path):
    answers = AnswerFile(tmp_path / "a.jsonl", "pairs")
    answers.append(make_row(id="1"), trains=True)
    answers.append(make_row(id="2", who="bob"), trains=True)
    before = answers.path.read_bytes() + b"edited by hand\n"
    answers.path.write_bytes(before)
    answers.append(make_row("tie", id="3"), trains=False)
    answers.append(make_row(id="4"), trains=True)
    undone = [answers.undo("ann"), answers.undo("ann")]
    assert [row["id"] for row in undone] == ["4", "3"]
    assert answers.path.read_bytes() == before
    assert answers.rest.read_bytes() == b""
    assert answers.undo("ann")["id"] == "1"
    assert answers.undo("ann") is None
    assert [row["who"] for row in answers.rows()] == ["bob"]


def append_many(path: str, who: str) -> None:
    answers = AnswerFile(Path(path), "pairs")
    for i in range(30):
        answers.append(make_row(id=f"{who}{i}", who=who, shown=("a" * 5000, "b")), trains=True)
        if i % 10 == 9:
            answers.undo(who)


def test_several_processes_write_one_file_without_loss(tmp_path):
    path = tmp_path / "a.jsonl"
    start = multiprocessing.get_context("fork")
    writers = [start.Process(target=append_many, args=(str(path), who)) for who in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    expected = {f"{who}{i}" for who in "abc" for i in range(30) if i % 10 != 9}
    ids = [row["id"] for row in rows_of(path)]
    assert len(ids) == len(expected) and set(ids) == expected

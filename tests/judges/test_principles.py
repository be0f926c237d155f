"""Constitutions: reading, drawing from and recording them, and files that are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignzoo.errors import BadInput
from alignzoo.record import Record
from alignzoo_judges import RATING_QUESTION, read_principles

ONE = "principles:\n- {critique: c, revision: r, question: q}\n"


def error_of(tmp_path: Path, text: str) -> BadInput:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as error:
        read_principles(file)
    assert str(file) in error.value.where
    return error.value


def fake_run(index: int = 0, round: int = 0, seed: int = 0):
    def seed_for(*what):
        return hash((seed, *map(str, what)))

    return SimpleNamespace(world=SimpleNamespace(rank=index), round=round, seed_for=seed_for)


def test_the_shipped_constitution_is_complete():
    found = read_principles()
    assert [p.name for p in found.principles] == ["harm", "respect", "alternatives", "over-refusal"]
    for principle in found.principles:
        assert principle.critique.endswith("?") and principle.question.startswith("Which response")
        assert principle.revision.startswith("Rewrite") and principle.rating != RATING_QUESTION
        assert principle.weight == 1.0
    assert found.example_messages == []


def test_optional_fields_have_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(ONE + "- {name: x, critique: a, revision: b, question: ' c ', weight: 3}\n")
    first, second = read_principles(file).principles
    assert (first.name, first.weight, first.rating) == ("1", 1.0, RATING_QUESTION)
    assert (second.name, second.weight, second.question) == ("x", 3.0, "c")


def test_the_messages_of_examples_are_joined(tmp_path):
    file = tmp_path / "mine.yaml"
    turns = "[{role: user, content: u}, {role: assistant, content: a}]"
    file.write_text(f"{ONE}examples: [{turns}, {turns}]\n")
    assert [m["content"] for m in read_principles(file).example_messages] == ["u", "a", "u", "a"]


@pytest.mark.parametrize(
    ("text", "problem", "where"),
    [
        ("", "has a list named `principles`", "mine.yaml"),
        ("[1]", "has a list named `principles`", "mine.yaml"),
        ("principles: []", "is empty", "mine.yaml"),
        ("principles: {a: 1}", "is empty", "mine.yaml"),
        ("principels: []\nprinciples: []", "unknown key 'principels'", "mine.yaml"),
        ("principles:\n- a: [", "not YAML", "line 2"),
        ("principles: [text]", "is a mapping of fields", "principle 1"),
        (ONE + "- {critique: c, question: q}", "'revision' is missing", "principle 2"),
        (ONE + "- {name: kind, critique: c, revision: r}", "'question' is", "principle 2 (kind)"),
        (ONE.replace("c,", "' ',"), "'critique' is not text", "principle 1"),
        (ONE.replace("q}", "[q]}"), "'question' is not text", "principle 1"),
        (ONE.replace("q}", "q, wieght: 1}"), "unknown field 'wieght'", "principle 1"),
        (ONE.replace("q}", "q, weight: 0}"), "weight 0 is not", "principle 1"),
        (ONE.replace("q}", "q, weight: yes}"), "weight True is not", "principle 1"),
        (ONE.replace("q}", "q, weight: .nan}"), "weight nan is not", "principle 1"),
        (ONE.replace("q}", "q, name: 3}"), "'name' is not text", "principle 1"),
        (ONE.replace("q}", "q, name: '2'}") + ONE[12:], "two principles", "mine.yaml"),
        (ONE + "examples: {a: b}", "is a list of dialogues", "mine.yaml"),
        (ONE + "examples: [[{role: user, content: u}]]", "user and assistant", "example 1"),
        (ONE + "examples: [[{role: assistant, content: u}, {role: user, content: u}]]", "in turn",
         "example 1"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, text, problem, where):
    error = error_of(tmp_path, text)
    assert problem in error.problem and where in error.where


def test_a_misspelled_field_gets_a_suggestion(tmp_path):
    error = error_of(tmp_path, ONE.replace("q}", "q, questoin: x}"))
    assert "question" in error.hint


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such principles file"):
        read_principles(tmp_path / "none.yaml")


def test_drawing_is_by_weight_and_deterministic(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(ONE + "- {name: heavy, critique: c, revision: r, question: q, weight: 3}\n")
    found = read_principles(file)
    drawn = found.draw(fake_run(), "label", 0, 0, 4000)
    assert Counter(p.name for p in drawn)["heavy"] / 4000 == pytest.approx(0.75, abs=0.03)
    # It depends on the rows, not on how they are split into parts.
    assert drawn[10:30] == found.draw(fake_run(), "label", 0, 10, 20)
    for other in (fake_run(index=1), fake_run(round=1), fake_run(seed=1)):
        assert found.draw(other, "label", 0, 0, 100) != drawn[:100]
    assert found.draw(fake_run(), "revision", 0, 0, 100) != drawn[:100]
    assert found.draw(fake_run(), "label", 1, 0, 100) != drawn[:100]


def test_a_resumed_run_needs_the_same_principles(tmp_path):
    run = SimpleNamespace(record=Record(tmp_path, {}))
    read_principles().record(run)
    read_principles().record(run)
    assert run.record.facts["principles"][0]["name"] == "harm"
    file = tmp_path / "mine.yaml"
    file.write_text(ONE)
    with pytest.raises(BadInput, match="principles differ"):
        read_principles(file).record(run)

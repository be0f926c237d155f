"""JSON lines that a crash cuts off, names that mean a path, and the words of messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.errors import BadInput, count, first_line, one_line
from alignzoo.files import (
    append_lines,
    looks_like_path,
    nearest_path,
    read_lines,
    read_yaml,
    unused_name,
)

ROWS = [{"text": "ein Ä\u2028 two"}, {"n": 1}, {"n": 2}]


def test_lines_come_back_as_they_were_appended(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == []
    append_lines(path, ROWS[:1])
    append_lines(path, iter(ROWS[1:]), sync=True, ensure_ascii=True)
    assert read_lines(path) == ROWS
    assert "Ä" in path.read_text(encoding="utf-8")


def test_a_row_that_is_no_json_leaves_the_file_as_it_was(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(ValueError, match="JSON compliant"):
        append_lines(path, [{"n": 1}, {"n": float("nan")}], allow_nan=False)
    assert not path.exists()


def test_a_line_that_was_cut_off_ends_the_reading_or_is_skipped(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n{"n": 2}\n{"text": "\xc3')
    assert read_lines(path) == [{"n": 1}]
    assert read_lines(path, skip_damaged=True) == [{"n": 1}, {"n": 2}]


def test_names_that_mean_a_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("./a", "/a", "~/a", "a/", "a/b/c", "a\\b", "runs/b"):
        assert looks_like_path(name), name
    for name in ("zoo-tiny", "Qwen/Qwen2.5-0.5B", "a.jsonl"):
        assert not looks_like_path(name), name
    assert looks_like_path("a.JSONL", (".jsonl",))


def test_a_similar_path_is_suggested(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "train.jsonl").touch()
    assert (
        nearest_path(tmp_path / "trian.jsonl") == f"did you mean {str(tmp_path / 'train.jsonl')!r}?"
    )
    assert nearest_path(tmp_path / "rnus" / "a") == f"did you mean {str(tmp_path / 'runs')!r}?"
    assert nearest_path(tmp_path / "xyz") == f"{tmp_path} holds: runs, train.jsonl"
    assert nearest_path(tmp_path / "xyz", folders=True) == f"{tmp_path} holds: runs"


def test_a_yaml_file_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "r.yaml"
    with pytest.raises(BadInput, match="no such recipe file"):
        read_yaml(path, "recipe file")
    path.write_text("a: 1\nb: [\n")
    with pytest.raises(BadInput, match="not YAML") as error:
        read_yaml(path, "recipe file")
    assert error.value.where == f"{path}, line 3"


def test_a_name_that_is_used_gets_a_number():
    assert unused_name("a", {"b"}.__contains__) == "a"
    assert unused_name("a", {"a", "a-2"}.__contains__) == "a-3"


def test_counts_are_said_in_the_singular_and_the_plural():
    assert [count(n, "row") for n in (0, 1, 2312)] == ["0 rows", "1 row", "2,312 rows"]
    assert [count(n, "process", "processes") for n in (1, 2)] == ["1 process", "2 processes"]


def test_the_first_line_of_an_error():
    assert first_line(ValueError("\na\nb")) == "a"
    assert first_line(ValueError()) == one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert len(first_line(ValueError("x" * 500))) == 200

"""JSON lines that a crash cuts off, names that mean a path, and the words of messages."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from alignzoo.errors import BadInput, count, first_line, one_line
from alignzoo.files import (
    append_lines,
    looks_like_path,
    nearest_path,
    read_lines,
    unused_name,
    write_bytes,
)
from alignzoo.safe_yaml import read_yaml

ROWS = [{"text": "ein Ä\u2028 two"}, {"n": 1}, {"n": 2}]


def test_a_whole_write_deletes_what_a_killed_one_left_but_no_other_s(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.safetensors"
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            write_bytes(path, b"half")
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    going_on = tmp_path / f".{path.name}.{socket.gethostname()}-{os.getpid()}-x"
    elsewhere = tmp_path / f".{path.name}.elsewhere-{child}-x"
    going_on.touch()
    elsewhere.touch()
    write_bytes(path, b"whole")
    assert set(tmp_path.iterdir()) == {path, going_on, elsewhere}
    assert path.read_bytes() == b"whole"


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


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "line 5: not YAML: more than 20,000 values"),
        ("a: &a [*a]", "line 1: not YAML: the anchor 'a' contains itself"),
        ("[" * 100_000, "line 1: not YAML: nested too deep"),
        ("seed: 1\nseed: 2\n", "line 2: not YAML: the key 'seed' is there twice"),
        ("a: {b: 1, b: 2}", "the key 'b' is there twice"),
        ("a: " + "9" * 5000, "line 1: not YAML: a number of 5,000 characters"),
        ("a: 0x" + "f" * 5000, "a number of 5,002 characters"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!timestamp 2020-99-99", "could not determine a constructor"),
        ("? [a]\n: 1\n", "unhashable key"),
        ("a: \0", "not YAML"),
        ("a: " + "x" * 10**6, "a recipe has at most 500,000 bytes"),
    ],
)
def test_yaml_that_is_not_plain_is_one_short_message(tmp_path: Path, text, says):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_yaml(path, "recipe")
    assert says in error.value.message and len(error.value.message) < 600


def test_plain_values_of_yaml(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "day: 2020-01-01\ntime: 12:30\nrate: 1e-4\nhalf: .5\nn: 1_000\nm: -3\noctal: 0123\n"
        "on: true\nnothing:\nbase: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\n"
    )
    assert read_yaml(path, "recipe") == {
        "day": "2020-01-01",
        "time": "12:30",
        "rate": "1e-4",
        "half": 0.5,
        "n": 1000,
        "m": -3,
        "octal": "0123",
        True: True,
        "nothing": None,
        "base": {"x": 1, "y": 2},
        "own": {"x": 1, "y": 3},
    }


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path):
    path = tmp_path / "r.yaml"
    os.mkfifo(path)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(BadInput, match="not a regular file"):
            read_yaml(endless, "recipe")


def test_names_that_are_too_long_are_paths_that_do_not_exist(tmp_path: Path):
    assert not looks_like_path("a" * 5000 + "/b")
    assert nearest_path(tmp_path / ("a" * 5000) / "b") == f"{tmp_path} holds: no folders"


def test_no_message_is_longer_than_a_screen():
    error = BadInput("p" * 10**6, where="w" * 10**6, hint="h" * 10**6)
    assert len(str(error)) < 2500 and str(error).startswith("www") and "ppp" in str(error)

"""A run that is killed before or after any of its file operations leaves, resumed, the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crash_points import (
    Recorder,
    State,
    differences,
    find_faults,
    in_child,
    kill_after,
    make_command,
    record,
    restore,
    with_cut_writes,
    without_copies,
)

from alignzoo.cli import status

EMPTY = {".": None}


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    """The folder that is compared: the run's and the user's cache."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("ALIGNZOO_CACHE", str(folder / "cache"))
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    # They share most of what they write: some take every other state or every fourth. The sweep of
    # benchmarks/crashes takes them all.
    ("algorithm", "every"),
    [("sft", 1), ("ppo", 4), ("rlaif", 2), ("best-of-n", 1), ("constitutional", 2)],
)
def test_a_run_is_resumed_from_a_crash_at_each_kind_of_operation(tmp_path, work, algorithm, every):
    words = make_command(algorithm, tmp_path, work)
    code, states = record(words, work)
    assert code == 0
    final = states[-1].files
    for state in choose_states(states, algorithm)[::every]:
        assert find_faults(words, work, state, final) == [], state.site


def choose_states(states: list[State], seed: str) -> list[State]:
    """Return a state of every place in the code, and every eighth of those within a write."""
    draw = random.Random(seed)
    found = without_copies(with_cut_writes(states), set())
    draw.shuffle(found)
    after = {state.site: state for state in found if not state.is_cut}
    return [*after.values(), *[state for state in found if state.is_cut][::8]]


@pytest.mark.long
def test_a_kill_leaves_what_was_recorded(tmp_path, work):
    words = make_command("sft", tmp_path, work)
    assert in_child(lambda: status(words)) == 0
    restore(EMPTY, work)
    states: list[State] = record(words, work)[1]
    for operation in random.Random(0).sample(range(1, len(states)), 3):
        restore(EMPTY, work)
        assert kill_after(words, work, operation) == -9
        assert differences(Recorder(work).read(), states[operation].files) == []


def test_what_a_run_leaves_differs_if_a_row_does():
    files = {"it": None, "it/metrics.jsonl": b'{"loss": 1, "seconds": 2}\n'}
    assert differences(files, files | {"it/metrics.jsonl": b'{"loss": 1, "seconds": 3}\n'}) == []
    changed = files | {"it/metrics.jsonl": b'{"loss": 2, "seconds": 2}\n', "it/more": b""}
    assert differences(files, changed) == ["it/metrics.jsonl", "it/more"]


def test_a_write_is_cut_where_a_file_grows_but_not_where_one_is_renamed():
    whole = {".": None, "a": b"1234"}
    found = list(with_cut_writes([State("s", {".": None}), State("t", whole)]))
    assert [state.files.get("a") for state in found] == [None, b"", b"12", b"1234"]
    moved = {".": None, "b": b"1234"}
    assert len(list(with_cut_writes([State("s", whole), State("t", moved)]))) == 2

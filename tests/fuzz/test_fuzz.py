"""Thousands of odd inputs must end in a result or in one message: no traceback, no hang.

The trials here are seeded and bounded in number; `trials.py` runs campaigns of any size.
"""

from __future__ import annotations

import random

import pytest
from generators import GENERATORS
from trials import Command, find_problem, run_trial

TRIALS = {"recipes": 100, "rows": 60, "models": 60, "runs": 40, "commands": 80}


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("kind", list(TRIALS))
def test_odd_input_ends_in_a_result_or_in_a_message(kind, part):
    half = TRIALS[kind] // 2
    ended = [run_trial(kind, GENERATORS[kind], part * half + n) for n in range(half)]
    faults = [fault for _, fault in ended if fault is not None]
    assert not faults, "\n".join(map(str, faults))
    # A generator whose input is always refused, or never, tries little.
    assert {code for code, _ in ended} == {0, 2}


@pytest.mark.parametrize(
    ("code", "out", "err", "problem"),
    [
        (0, "fine", "", None),
        (2, "", "alignzoo: d.jsonl: the file is empty\n", None),
        (1, "", "alignzoo: KeyError: 'x'\n  the traceback is in /tmp/a.log\n", "exit code 1"),
        (0, "", "Traceback (most recent call last):\n", "a traceback"),
        (2, "", "", "no message"),
        (2, "", "alignzoo: " + "x" * 5000, "a message of 5,010 characters"),
        (2, "", "alignzoo: \x1b[31mred\n", "control characters"),
        (-1, "", "", "it hangs"),
    ],
)
def test_what_is_a_fault(code, out, err, problem):
    found = find_problem(code, out, err)
    assert found is None if problem is None else found is not None and problem in found


def test_a_trial_finds_the_fault_of_a_command(monkeypatch):
    """Also of one that fails as no command should: the trial goes on."""
    monkeypatch.setattr("alignzoo.cli.app.build_app", lambda: lambda **_: 1 / 0)
    code, fault = run_trial("broken", lambda rng, folder: Command(["plugins"]), 7)
    assert code == 1 and fault is not None
    assert "ZeroDivisionError" in fault.problem and "broken 7" in str(fault)


def test_a_number_makes_the_same_trial_again(tmp_path):
    found = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        command = GENERATORS["recipes"](random.Random("recipes 3"), folder)
        content = (folder / "recipe.yaml").read_bytes().replace(str(folder).encode(), b"")
        found.append((content, [word.replace(str(folder), "") for word in command.words]))
    assert found[0] == found[1]

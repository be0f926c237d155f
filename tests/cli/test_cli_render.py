from __future__ import annotations

import io
import os
import subprocess

import pytest
from cli_fakes import Estimate
from rich.console import Console

from alignzoo.cli.render import (
    beside,
    change_table,
    clean,
    estimate,
    shell_command,
    summary_table,
)
from alignzoo.cli.terminal import console_for, milestones


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
        ("\x1b[31mx", r"\x1b[31mx"),
        ("a\rb\x07\x08\x00", r"a\rb\x07\x08\x00"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("\ud800", r"\ud800"),
        ("line\n\ttab é 漢 👩\u200d💻", "line\n\ttab é 漢 👩\u200d💻"),
    ],
)
def test_text_of_a_model_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system="truecolor")
    console.print(beside({"base": text, "tuned": text}, 200))
    assert out.getvalue().count(shown.split("\n")[0]) == 2
    assert "\x1b[31m" not in out.getvalue()


def test_columns_become_paragraphs_in_a_narrow_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(beside({"base": "one", "tuned": ""}, 60))
    assert out.getvalue().split() == ["base", "one", "tuned", "(empty)"]


def test_a_measure_with_and_without_an_interval() -> None:
    assert estimate("score", Estimate(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"
    assert estimate("kl", Estimate(0.0)) == "0.000"
    assert estimate("kl", Estimate(0.1, float("nan"), 1.0)) == "0.100"
    assert estimate("length", Estimate(12.34, 10, 14)) == "12.3 [10.0, 14.0]"
    assert estimate("ended", Estimate(0.9, 0.8, 0.95)) == "90% [80%, 95%]"
    assert estimate("score", Estimate(float("nan"))) == estimate("score", None) == "-"


def test_a_table_has_every_row_that_either_column_has() -> None:
    out = io.StringIO()
    table = summary_table(
        {"before": {"score": Estimate(1)}, "after": {"kl": Estimate(2)}, "none": None}
    )
    Console(file=out, width=80).print(table)
    rows = [line.split() for line in out.getvalue().splitlines() if "0" in line]
    assert rows == [["score", "1.000", "-", "-"], ["KL", "to", "the", "base", "-", "2.000", "-"]]


def test_a_change_has_its_sign_and_its_interval_even_in_a_narrow_terminal() -> None:
    before, after = {"score": Estimate(0.5, 0.4, 0.6)}, {"score": Estimate(0.6, 0.5, 0.7)}
    changes = {"score": Estimate(0.1, 0.05, 0.15)}
    shown = {}
    for width in (80, 95):
        out = io.StringIO()
        Console(file=out, width=width).print(change_table(before, after, changes, width))
        shown[width] = out.getvalue().splitlines()[3].split()
    assert shown[80] == ["score", "0.500", "0.600", "+0.100", "[+0.050,", "+0.150]"]
    assert shown[95] == [
        "score", "0.500", "[0.400,", "0.600]", "0.600", "[0.500,", "0.700]",
        "+0.100", "[+0.050,", "+0.150]",
    ]  # fmt: skip


def test_lines_are_due_at_each_tenth() -> None:
    due = milestones()
    assert [i for i in range(1, 101) if due(i / 100)] == list(range(10, 101, 10))
    due = milestones(seconds=60)
    assert not any(due(i / 100) for i in range(1, 101))


def test_a_pipe_is_at_least_80_wide_and_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with open(os.devnull, "w") as stream:
        console = console_for(stream)
    assert console.width == 80
    assert not console.is_interactive


@pytest.mark.parametrize(
    "word", ["plain", "two words", "it's", "a\\b 'c'", "\x1b[31mred\x07", "a\nb"]
)
def test_a_command_to_copy_is_what_was_typed_and_controls_no_terminal(word: str) -> None:
    command = shell_command(["printf", "%s", word])
    assert not any(char < " " or char == "\x7f" for char in command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == word
    assert shell_command(["\u202e"]) == r"$'\U0000202e'"
    assert shell_command([os.fsdecode(b"\xff")]) == r"$'\xff'"

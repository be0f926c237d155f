"""`alignzoo view`: what it selects, shows and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from view_fakes import answer, drawn, make_folder

from alignzoo.errors import BadInput
from alignzoo_view.command import ViewCommand
from alignzoo_view.select import spread

ROLLOUTS = [
    drawn(1, 0.0), drawn(1, 1.0), drawn(1, 0.5),
    drawn(11, 0.25), drawn(11, None, completion="unscored"), drawn(11, 0.75, ended=False),
]  # fmt: skip
EVALS = [
    answer("before", 0, 1.0), answer("before", 1, 0.0), answer("before", 2, 0.0),
    answer("after", 0, 0.0), answer("after", 1, 1.0), answer("after", 2, 0.0),
    answer("step 5", 1, 0.0),  # cut off by a crash: not among the results
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "run", ROLLOUTS, EVALS)


def seen(capsys, run: Path, **options) -> dict:
    ViewCommand(str(run), json=True, **options).main()
    return json.loads(capsys.readouterr().out)


def test_all_steps_are_summed_up_and_the_last_is_shown(run, capsys):
    found = seen(capsys, run, count=2)
    assert found["steps"] == [
        {"step": 1, "completions": 3, "reward": 0.5, "length": 4.0, "ended": 1.0},
        {"step": 11, "completions": 3, "reward": 0.5, "length": 4.0, "ended": pytest.approx(2 / 3)},
    ]
    assert {step: [row["reward"] for row in rows] for step, rows in found["drawn"].items()} == {
        "11": [0.25, None]
    }
    assert [(pair["item"], pair["before"]["score"]) for pair in found["pairs"]] == [
        (0, 1.0), (1, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "rewards", "items"),
    [
        ({"best": True}, [0.75, 0.25, None], [1, 2, 0]),
        ({"worst": True}, [0.25, 0.75, None], [0, 2, 1]),
        ({"best": True, "step": 1, "count": 2}, [1.0, 0.5], []),
        ({"worst": True, "count": 1}, [0.25], [0]),
    ],
)
def test_the_best_and_the_worst(run, capsys, options, rewards, items):
    found = seen(capsys, run, **options)
    assert [row["reward"] for rows in found["drawn"].values() for row in rows] == rewards
    assert [pair["item"] for pair in found["pairs"]] == items


def test_the_terminal_shows_model_text_without_obeying_it(tmp_path, capsys):
    hostile = "\x1b[2J[red]bold[/red]\u202e\x07"
    rows = [drawn(1, 1.0, completion=hostile, prompt=hostile, rewards={hostile: 1.0})]
    credit = [[hostile, 1.0], ["b", -2.0], ["c", None]]
    rows.append(drawn(1, 0.0, credit=credit))
    pairs = [answer(phase, 0, 1.0, completion=hostile) for phase in ("before", "after")]
    ViewCommand(str(make_folder(tmp_path / "run", rows, pairs))).main()
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert r"\x1b[2J[red]bold[/red]" in text
    assert "from -2 at 'b' to +1 at" in " ".join(text.split())
    assert "before, score 1, 3 tokens, cut off" in " ".join(text.split())


def test_an_episode_is_shown_turn_by_turn(tmp_path, capsys):
    turns = [["model", "add 1 2", 0.25], ["environment", "[bold]3[/]", None], ["model", "3", 0.0]]
    said = [turn[:2] for turn in turns]
    evals = [answer(phase, 0, 0.5, turns=said) for phase in ("before", "after")]
    run = make_folder(tmp_path / "run", [drawn(1, 0.25, turns=turns)], evals)
    ViewCommand(str(run)).main()
    shown = capsys.readouterr().out
    assert "model (+0.25): add 1 2\nenvironment: [bold]3[/]\nmodel: 3\n" in shown
    assert shown.count("environment: [bold]3[/]") == 3  # the answers before and after as well
    ViewCommand(str(run), html=str(tmp_path / "page.html")).main()
    page = (tmp_path / "page.html").read_text()
    assert page.count('<p class="text turn theirs"><span class="who">environment</span>') == 3
    assert '<span class="who">model (+0.25)</span>add 1 2' in page


def test_a_line_in_progress_is_left_out(tmp_path, capsys):
    run = make_folder(tmp_path / "run", [drawn(1, 1.0), '{"step": 11, "rou'], [])
    assert [one["step"] for one in seen(capsys, run)["steps"]] == [1]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["{}\n"], "step"),
        ([drawn(1, 1.0), "not JSON\n", drawn(1, 1.0)], "Invalid JSON"),
        (["[1, 2]\n"], "damaged"),
        ([drawn(1, "high")], "reward"),
        ([drawn(1, 1.0, credit=[["a"]])], "credit"),
        (['{"step": 1, "prompt": "\\ud800"}\n'], "damaged"),
        (["[" * 100_000 + "\n"], "damaged"),
        (["\0\n"], "damaged"),
    ],
)
def test_a_damaged_file_is_one_message(tmp_path, rows, problem):
    run = make_folder(tmp_path / "run", rows, [])
    with pytest.raises(BadInput, match=problem) as caught:
        ViewCommand(str(run)).main()
    assert "rollouts.jsonl, line" in caught.value.where


def test_what_cannot_be_viewed_is_refused(run, tmp_path):
    with pytest.raises(BadInput, match=r"no run\.json"):
        ViewCommand(str(tmp_path)).main()
    with pytest.raises(BadInput, match="nothing to view"):
        ViewCommand(str(make_folder(tmp_path / "none", [], EVALS[:3]))).main()
    with pytest.raises(BadInput, match="no completions of step 2") as caught:
        ViewCommand(str(run), step=2).main()
    assert "1, 11" in caught.value.hint
    for options in ({"best": True, "worst": True}, {"json": True, "html": "page.html"}):
        with pytest.raises(BadInput, match="name one of them"):
            ViewCommand(str(run), **options).main()
    for path in (tmp_path, tmp_path / "no" / "page.html"):
        with pytest.raises(BadInput, match="--html"):
            ViewCommand(str(run), html=str(path)).main()
    pipe = make_folder(tmp_path / "pipe", [], [])
    os.mkfifo(pipe / "rollouts.jsonl")
    with pytest.raises(BadInput, match="not a regular file"):
        ViewCommand(str(pipe)).main()


@pytest.mark.parametrize(("count", "most"), [(1, 2), (5, 5), (100, 3), (7, 2)])
def test_spread_has_both_ends(count, most):
    found = spread(list(range(count)), most)
    assert found[0] == 0 and found[-1] == count - 1
    assert len(found) == min(count, most) and found == sorted(set(found))

"""Boards of several machines become one, unless they are not comparable."""

import copy
import json

import pytest
from report_fakes import make_board

from alignzoo.cli import status
from alignzoo_compare.board import read_board
from alignzoo_compare.leaderboard import (
    check_comparable,
    find_difference,
    group_boards,
    merge_boards,
    name_groups,
)
from alignzoo_compare.report import summarise_board


def save(folder, change=lambda row: None, keep=lambda row: True, **options):
    """Write a board to the disk, its rows changed, and return it as it is read."""
    board = make_board(folder, **options)
    folder.mkdir(parents=True)
    (folder / "board.json").write_text(json.dumps(board.grid.as_dict()))
    rows = [copy.deepcopy(row) for row in board.rows if keep(row)]
    for row in rows:
        change(row)
    (folder / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_board(folder)


def test_tasks_of_two_machines_are_one_board(tmp_path):
    boards = [save(tmp_path / task, tasks=(task,)) for task in ("style", "sums")]
    merged = merge_boards(check_comparable(boards), tmp_path)
    whole = make_board(tmp_path)
    assert merged.grid == whole.grid
    assert summarise_board(merged) == summarise_board(whole)


def test_seeds_of_two_machines_are_one_board_and_a_cell_of_both_counts_once(tmp_path):
    one = save(tmp_path / "a", seeds=2)
    other = save(tmp_path / "b", seeds=3, keep=lambda row: row["number"] >= 1)
    merged = merge_boards(check_comparable([one, other]), tmp_path)
    assert summarise_board(merged) == summarise_board(make_board(tmp_path))


def test_times_and_machines_may_differ_in_a_cell_of_both(tmp_path):
    def slower(row):
        row["ledger"]["seconds"] *= 2
        row["environment"] = {}

    boards = [save(tmp_path / "a"), save(tmp_path / "b", slower)]
    assert find_difference(*boards) is None


def set_mark(name, value):
    def change(row):
        row["fingerprints"][name] = value

    return change


def change_items(row):
    if (row["entry"], row["kind"], row["number"]) == ("dpo", "final", 1):
        row["items"]["score"][0] += 1e-9


@pytest.mark.parametrize(("change", "options", "words"), [
    (set_mark("model", "x"), {}, "the base of task style: mmm"),
    (set_mark("weights", "x"), {}, "the weights of the base of task style"),
    (set_mark("code", "x"), {}, "the version of alignzoo: ccc"),
    (set_mark("task", "x"), {}, "the version of task style: tstyle and x"),
    (set_mark("plugin", "x"), {}, "the code of entry"),
    (change_items, {}, "the results of the same cell: dpo on style, final 1"),
    (lambda row: None, {"budget": "500feedback"}, "budget: 3e+11 FLOPs and 500 labels, pairs"),
    (lambda row: None, {"eval_size": 50}, "eval_size: 40 and 50"),
    (lambda row: None, {"trials": 2}, "trials: 3 and 2"),
    (lambda row: None, {"common": {"max_new_tokens": 9}}, "common: {} and {'max_new_tokens': 9}"),
])  # fmt: skip
def test_what_is_not_comparable_is_one_message_or_two_sections(
    tmp_path, capsys, change, options, words
):
    folders = [str(tmp_path / name) for name in ("a", "b", "c")]
    save(tmp_path / "a", tasks=("style",), seeds=2)
    save(tmp_path / "b", change, tasks=("style",), seeds=2, **options)
    save(tmp_path / "c", tasks=("sums",), seeds=2)
    out = tmp_path / "out"
    assert status(["leaderboard", *folders, "--out", str(out)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"{folders[0]} and {folders[1]} are not comparable; they differ in {words}" in message
    assert "add --apart" in message
    assert not out.exists()
    groups = group_boards([read_board(tmp_path / name) for name in ("a", "b", "c")])
    assert [[board.folder.name for board in group] for group in groups] == [["a", "c"], ["b"]]


def test_a_model_given_by_name_is_the_base_of_all_tasks(tmp_path):
    one = save(tmp_path / "a", tasks=("style",), model="m")
    other = save(tmp_path / "b", set_mark("weights", "x"), tasks=("sums",), model="elsewhere/m")
    assert find_difference(one, other).startswith("the weights of the base: www")


def test_a_board_of_two_code_versions_is_refused(tmp_path, capsys):
    def change(row):
        if row["entry"] == "kto":
            row["fingerprints"]["code"] = "older"

    save(tmp_path / "a", change, tasks=("style",))
    assert status(["leaderboard", str(tmp_path / "a"), str(tmp_path / "a"), "--apart"]) == 2
    assert "cells of one board differ in the version of alignzoo" in capsys.readouterr().err


def test_the_command_writes_the_report(tmp_path, capsys):
    save(tmp_path / "a", tasks=("style",), seeds=2)
    save(tmp_path / "b", tasks=("style",), seeds=2, budget="500feedback")
    readme, out = tmp_path / "README.md", tmp_path / "out"
    words = ["leaderboard", str(tmp_path / "a"), str(tmp_path / "b"), "--apart", "--out", str(out)]
    assert status([*words, "--markdown", str(readme)]) == 2
    readme.write_text("no markers")
    assert status([*words, "--markdown", str(readme)]) == 2
    assert "has no place for the tables" in capsys.readouterr().err
    readme.write_text("<!-- leaderboard -->\n<!-- /leaderboard -->\n")
    assert status([*words, "--markdown", str(readme)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "report.html", "table.md", "table.csv", "summary.json",
    }  # fmt: skip
    tables = readme.read_text()
    assert tables.count("| grpo |") == 2
    assert "**a**" in tables and "**b**" in tables


def test_folders_of_one_name_are_titled_by_their_paths(tmp_path):
    groups = [[make_board(tmp_path / name / "board")] for name in "ab"]
    assert name_groups(groups) == [str(tmp_path / name / "board") for name in "ab"]

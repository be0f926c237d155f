"""A board keeps finished cells, runs none of them again, and refuses what it cannot compare."""

import json

import pytest
from compare_fakes import TRIAL_SEED, FakeWorkers, make_grid, make_row

from alignzoo import BadInput
from alignzoo_compare.board import (
    Board,
    count_cells,
    due_cells,
    open_board,
    read_board,
    read_rows,
)
from alignzoo_compare.grid import best_of_n_size
from alignzoo_compare.runner import run_board

ENTRIES = ["base", "best-of-n", "sft", "sft-chosen", "raft", "random-reward", "dpo"]


def run(folder, grid=None, workers=None, show=lambda progress: None):
    workers = workers or FakeWorkers()
    with open_board(folder, grid or make_grid()) as board:
        run_board(board, workers, show)
    return workers


def test_the_base_comes_first_and_finals_after_their_trials(tmp_path):
    workers = run(tmp_path)
    order = [(cell.kind, cell.entry) for cell in workers.cells]
    assert order[0] == ("final", "base")
    for entry in ENTRIES[2:]:
        assert order.index(("final", entry)) > max(
            place for place, cell in enumerate(order) if cell == ("trial", entry)
        )
    assert workers.stopped


def test_one_task_comes_after_the_other(tmp_path):
    workers = run(tmp_path, make_grid(tasks=("sums", "style")))
    tasks = [cell.task for cell in workers.cells]
    assert tasks == sorted(tasks, key=["sums", "style"].index)


def test_every_entry_has_its_trials_and_its_seeds(tmp_path):
    run(tmp_path)
    board = read_board(tmp_path)
    assert len(board.rows) == count_cells(board) == 5 * 3 + 7 * 2
    for entry in ENTRIES:
        trials = board.find("trial", entry, "style")
        assert len(trials) == (0 if entry in ("base", "best-of-n") else 3)
        assert {row["seed"] for row in trials} <= {TRIAL_SEED}
        assert {row["split"] for row in trials} <= {"dev"}
        finals = board.find("final", entry, "style")
        assert [row["seed"] for row in finals] == [0, 1]
        assert {row["split"] for row in finals} == {"test"}


def test_finals_have_the_settings_that_won_on_dev(tmp_path):
    run(tmp_path)
    for row in read_board(tmp_path).find("final", "dpo", "style"):
        assert row["trial"] == {"learning_rate": 0.003}
        assert row["settings"]["learning_rate"] == 0.003
        assert "--learning-rate 0.003" in row["command"]


def test_a_finished_cell_is_never_run_again(tmp_path):
    run(tmp_path)
    before = (tmp_path / "cells.jsonl").read_bytes()
    assert run(tmp_path).cells == []
    assert (tmp_path / "cells.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, 7, 20])
def test_a_stopped_board_goes_on_to_the_same_rows(tmp_path, kept):
    run(tmp_path / "whole")
    rows = (tmp_path / "whole" / "cells.jsonl").read_text().splitlines(keepends=True)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "board.json").write_bytes((tmp_path / "whole" / "board.json").read_bytes())
    # A crash has cut off the line that it was writing.
    (stopped / "cells.jsonl").write_text("".join(rows[:kept]) + rows[kept][:50])
    run(stopped)
    again = (stopped / "cells.jsonl").read_text().splitlines(keepends=True)
    assert sorted(again) == sorted(rows)


def test_a_trial_that_is_missing_among_later_ones_is_run(tmp_path):
    run(tmp_path)
    path = tmp_path / "cells.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    missing = {("dpo", 1), ("sft", 0), ("raft", 2)}
    kept = [
        line
        for line, row in zip(rows, map(json.loads, rows), strict=True)
        if row["kind"] == "trial" and (row["entry"], row["number"]) not in missing
    ]
    path.write_text("".join(kept))
    run(tmp_path)
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(rows)


def test_more_seeds_and_entries_run_only_what_is_new(tmp_path):
    run(tmp_path)
    workers = run(tmp_path, make_grid(seeds=3))
    assert {cell.number for cell in workers.cells} == {2}
    assert {cell.kind for cell in workers.cells} == {"final"}


class Dying(FakeWorkers):
    """Workers of which one dies when it has a cell of dpo, a number of times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def finish(self, future, cell):
        if cell.entry == "dpo" and cell.kind == "final" and self.times:
            self.times -= 1
            future.set_exception(RuntimeError("killed"))
        else:
            super().finish(future, cell)


def test_a_cell_whose_worker_died_is_tried_again(tmp_path):
    run(tmp_path, workers=Dying(times=1))
    rows = read_board(tmp_path).find("final", "dpo", "style")
    assert [row["status"] for row in rows] == ["finished", "finished"]


def test_a_cell_that_kills_its_worker_twice_has_failed(tmp_path):
    run(tmp_path, make_grid(seeds=1), workers=Dying(times=2))
    (row,) = read_board(tmp_path).find("final", "dpo", "style")
    assert row["status"] == "failed"
    assert "its worker died" in row["error"]


class Refusing(FakeWorkers):
    """Workers whose cells of an entry are refused."""

    def __init__(self, entry):
        super().__init__()
        self.entry = entry

    def finish(self, future, cell):
        row = make_row(cell)
        if cell.entry == self.entry:
            row = {k: row[k] for k in row if k not in ("items", "ledger", "fingerprints")}
            row |= {"status": "refused", "error": "no pairs"}
        future.set_result(row)


def test_settings_that_are_refused_are_tried_once(tmp_path):
    workers = run(tmp_path, workers=Refusing("dpo"))
    assert [cell.kind for cell in workers.cells if cell.entry == "dpo"] == ["trial"]


def test_a_task_whose_base_is_refused_ends_the_comparison(tmp_path):
    with pytest.raises(BadInput, match="task 'style' cannot be evaluated: no pairs"):
        run(tmp_path, workers=Refusing("base"))


class Refused(FakeWorkers):
    """Workers that refuse every run but those of the base and best-of-n."""

    def finish(self, future, cell):
        row = make_row(cell)
        if cell.entry in ("base", "best-of-n"):
            row["steps"] = 0
        else:
            row |= {"status": "refused", "error": "one step takes too much"}
        future.set_result(row)


def test_a_budget_that_is_too_small_for_all_entries_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no algorithm could be trained: one step takes"):
        run(tmp_path, workers=Refused())


def test_another_budget_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(BadInput, match="budget '1e10flops', not '2e10flops'"):
        run(tmp_path, make_grid(budget="2e10flops"))


def test_a_board_is_open_in_one_program(tmp_path):
    with (
        open_board(tmp_path, make_grid()),
        pytest.raises(BadInput, match="another program"),
        open_board(tmp_path, make_grid()),
    ):
        pass


def test_rows_of_another_version_of_the_code_are_refused(tmp_path):
    run(tmp_path)
    path = tmp_path / "cells.jsonl"
    first, *others = path.read_text().splitlines()
    row = json.loads(first)
    row["fingerprints"]["code"] = "older"
    path.write_text("\n".join([json.dumps(row), *others]) + "\n")
    before = path.read_bytes()
    with pytest.raises(BadInput, match="1 of 29 cells were run by another version"):
        run(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line[:40] + line[41:60] + "\n", "not the row of a cell"),
        (lambda line: "null\n", "not the row of a cell"),
        (lambda line: line.replace('"length": [20, ', '"length": ['), "differ in length"),
        (lambda line: line.replace('"score": [0.', '"score": ["a", 0.', 1), "differ in length"),
    ],
)
def test_a_damaged_row_is_named_with_its_line(tmp_path, damage, message):
    run(tmp_path)
    path = tmp_path / "cells.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = damage(lines[3])
    path.write_text("".join(lines))
    with pytest.raises(BadInput, match=message) as caught:
        read_board(tmp_path)
    assert caught.value.where == f"{path}, line 4"


def test_a_folder_without_a_board_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no board\.json"):
        read_board(tmp_path)


def test_best_of_n_spends_the_budget_on_its_answers():
    grid = make_grid(budget="1e12flops", eval_size=100)
    assert best_of_n_size(grid, answer_flops=1e9) == 10  # 1e12 / (100 x 1e9)
    assert best_of_n_size(grid, answer_flops=1e12) == 2
    assert best_of_n_size(grid, answer_flops=1.0) == 64
    assert best_of_n_size(make_grid(budget="1000feedback", eval_size=100), 1e9) == 10


def test_settings_of_training_are_none_of_an_entry_that_does_not_train(tmp_path):
    common = {"batch_size": 4, "max_new_tokens": 32, "addons": ["retention"]}
    run(tmp_path, make_grid(common=common))
    board = read_board(tmp_path)
    untrained = common | {"batch_size": None}
    for entry, expected in {"best-of-n": untrained, "base": untrained, "dpo": common}.items():
        settings = board.find("final", entry, "style")[0]["settings"]
        assert {name: settings.get(name) for name in common} == expected


def test_only_the_base_is_evaluated_before_training(tmp_path):
    board = Board(tmp_path, make_grid())
    assert [cell.entry for cell in due_cells(board) if cell.settings["eval_before"]] == [
        "base",
        "base",
    ]
    assert read_rows(tmp_path / "cells.jsonl") == []

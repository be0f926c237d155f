"""Results of runs are measured on other tasks besides, such as preference pairs."""

import json

import pytest
from compare_fakes import make_grid
from report_fakes import make_board

from alignzoo import BadInput
from alignzoo_compare.board import Board, final_cell
from alignzoo_compare.cell import run_cell
from alignzoo_compare.command import CompareCommand
from alignzoo_compare.grid import Grid, read_grid
from alignzoo_compare.report.page import task_table
from alignzoo_compare.report.summary import summarise_board
from alignzoo_compare.report.tables import flat_row

PAIR = {"prompt": "Write about the sea.", "chosen": "The sea is lovely.", "rejected": "No."}


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(PAIR | {"prompt": f"{n}?"}) + "\n" for n in range(40)))
    return f"pairs,path={path}"


def test_a_run_is_measured_on_pairs_and_the_base_by_likelihood_alone(tmp_path, pairs):
    likelihood = f"{pairs},prefer=likelihood"
    common = {"max_new_tokens": 4, "batch_size": 2}
    grid = make_grid(
        also=(pairs, likelihood), trials=1, budget="2e9flops", eval_size=4, common=common
    )
    board = Board(tmp_path, grid)
    trained, base, drawn = (
        run_cell(cell, tmp_path)["also"]
        for entry in ("sft", "base", "best-of-n")
        if (cell := final_cell(board, entry, "style", 0) or best_of_n(grid))
    )
    assert set(trained) == {pairs, likelihood}
    assert 0 <= trained[pairs]["reward_accuracy"] <= 1
    assert trained[pairs]["reward_margin"] != 0
    assert trained[pairs]["score"] == trained[pairs]["reward_accuracy"]
    # Before training an implicit reward is not known.
    assert set(base) == {likelihood}
    assert base[likelihood]["likelihood_margin"] != trained[likelihood]["likelihood_margin"]
    assert drawn == {}


def best_of_n(grid):
    """Return a cell of best-of-n, whose size the base's cost would give."""
    entries = grid.entries | {"best-of-n": {"algorithm": "best-of-n", "options": {"n": 2}}}
    board = Board(None, make_grid(entries=entries, also=grid.also, eval_size=4, trials=1))
    return final_cell(board, "best-of-n", "style", 0)


def test_the_report_has_means_over_seeds(tmp_path):
    board = make_board(tmp_path)
    for row in board.find("final", "dpo", "style"):
        row["also"] = {"lm-eval:arc": {"acc": 0.5 + 0.1 * row["number"]}}
    task = summarise_board(board).tasks[0]
    (dpo,) = [entry for entry in task.entries if entry.entry == "dpo"]
    found = dpo.also["lm-eval:arc acc"]
    assert found.mean == pytest.approx(0.6) and found.low < 0.5 < 0.7 < found.high
    assert flat_row(task, dpo)["also_lm-eval:arc acc_mean"] == found.mean
    table = task_table(task)
    assert "another task" in table.headings["lm-eval:arc acc"]
    place = list(table.headings).index("lm-eval:arc acc")
    texts = {row[0].text: row[place].text for row in table.rows}
    assert texts["dpo"].startswith("0.600 [") and texts["sft"] == ""


def test_a_grid_knows_its_other_tasks(tmp_path):
    grid = make_grid(also=("pairs,path=a.jsonl", "lm-eval:arc"))
    assert Grid.from_dict(json.loads(json.dumps(grid.as_dict()))) == grid
    with pytest.raises(BadInput, match="nonsense"):
        CompareCommand(["dpo"], also="nonsense").compose()
    found, _ = CompareCommand(["dpo"], also="pairs,path=a.jsonl,lm-eval:arc").compose()
    assert found.also == grid.also
    path = tmp_path / "grid.yaml"
    path.write_text("also: [./task.py]\n")
    with pytest.raises(BadInput, match="Python code"):
        read_grid(path, allow_code=False)

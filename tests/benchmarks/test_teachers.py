"""The study of teachers: runs that need one another, and the tables that its pages show."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "benchmarks/teachers/README.md",
    ROOT / "plugins/alignzoo_zoo/distill/README.md",
    ROOT / "plugins/alignzoo_zoo/self_distill/README.md",
    ROOT / "plugins/alignzoo_zoo/grpo/README.md",
]
GRID = """
seeds: [3]
needed:
  writer: {algorithm: sft, steps: 1, eval_size: 2, batch_size: 2, seed: 7}
methods:
  student:
    algorithm: distill
    teacher_from: writer
    steps: 2
    eval_size: 2
    eval_every: 1
    batch_size: 2
"""


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks/teachers")
    import study

    return study


def test_a_student_learns_from_the_result_of_another_run_which_is_kept(
    study, tmp_path, monkeypatch
):
    (tmp_path / "tiny.yaml").write_text(GRID)
    monkeypatch.setattr(study, "HERE", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    runs = tmp_path / "runs"
    study.main("tiny", runs=str(runs))
    [row] = study.read_rows("tiny")
    assert row["method"] == "student" and row["settings"]["teacher_from"]["steps"] == 1
    assert row["ledger"]["flops"]["teacher"] > 0
    assert [point["step"] for point in row["during"]] == [1]
    assert 0 < row["during"][0]["flops"] < row["ledger"]["total_flops"]
    writer = study.folder_of(row["settings"]["teacher_from"], 7, runs)
    assert study.train_needed(row["settings"]["teacher_from"], 3, runs) == writer / "run"
    study.main("tiny", runs=str(runs))
    assert len(study.read_rows("tiny")) == 1


@pytest.mark.parametrize(("grid", "points", "seeds_shown"), [("test", 10, 5), ("steps", 4, 4)])
def test_the_pages_show_the_rows(study, grid, points, seeds_shown):
    lines = [line.split(" | ") for line in study.format_table(study.read_rows(grid))][2:]
    assert len(lines) == points
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    for method, step, score, flops, seeds in lines:
        found = [page for page in pages if score in page]
        assert len(found) >= 2, (method, step, score)
        assert step == "0" or flops.replace("e+", "e") in pages[0], (method, step, flops)
        assert seeds == f"{seeds_shown} |"

"""A study whose methods start from one another, and its table round by round."""

from __future__ import annotations

from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
GRID = """
tasks: [sums]
seeds: [3]
methods:
  sft: {steps: 2, eval_size: 4, batch_size: 2}
  more: {algorithm: sft, from: sft, steps: 3, eval_size: 4, batch_size: 2, eval_every: 2}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(STUDIES)
    import study

    (tmp_path / "tiny.yaml").write_text(GRID)
    monkeypatch.setattr(study, "HERE", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    return study


def test_a_method_starts_from_the_other_one_s_result(study):
    first, more = study.list_cells("tiny")
    assert more.settings["from"] == first.settings == {
        "algorithm": "sft", "steps": 2, "eval_size": 4, "batch_size": 2
    }  # fmt: skip
    study.main("tiny")
    ours, theirs = study.read_results("tiny")
    # The second one starts with the result of the first one, trained again for it.
    name = "held-out/loss"
    assert theirs["before"][name]["mean"] == pytest.approx(ours["after"][name]["mean"], abs=1e-4)
    assert ours["before"][name]["mean"] != pytest.approx(ours["after"][name]["mean"], abs=1e-4)
    assert [point["step"] for point in theirs["during"]] == [2]
    study.main("tiny")
    assert len(study.read_results("tiny")) == 2


def test_an_unknown_method_is_refused_as_a_start(study, tmp_path):
    (tmp_path / "tiny.yaml").write_text(GRID.replace("from: sft", "from: stf"))
    with pytest.raises(KeyError, match="stf"):
        list(study.list_cells("tiny"))


def test_a_recorded_row_is_found_by_the_current_names_of_its_options(study):
    old, new = ({"algorithm": "dpo", "options": {name: "ipo"}} for name in ("loss", "loss_type"))
    row = {"method": "dpo-ipo", "settings": old | {"from": old}, "task": "sums", "seed": 0}
    assert study.Cell.of(row).key == study.Cell("dpo-ipo", new | {"from": new}, "sums", 0).key


def row(method: str, seed: int, scores: list[float]) -> dict:
    before, *between, after = ({"score": {"mean": score}} for score in scores)
    during = [{"step": 1, "score": point["score"]["mean"]} for point in between]
    ends = {"before": before, "after": after, "during": during}
    return {"method": method, "seed": seed, "task": "sums", **ends}


def test_the_table_is_over_the_seeds_that_both_have(monkeypatch):
    monkeypatch.syspath_prepend(STUDIES)
    from rounds import table_lines

    rows = [
        row("spin", 0, [0.5, 0.6, 0.9]),
        row("spin", 1, [0.7, 0.6, 0.7]),
        row("spin", 2, [0.1, 0.1, 0.1]),
        row("more", 0, [0.5, 0.5, 0.5]),
        row("more", 1, [0.7, 0.8, 0.9]),
    ]
    assert table_lines(rows, "spin", "more") == [
        "| 0 | 0.600 |  | 0.600 |  |",
        "| 1 | 0.600 | +0.000 | 0.650 | -0.050 |",
        "| 2 | 0.800 | +0.200 | 0.700 | +0.100 |",
    ]

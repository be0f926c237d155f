"""Grids from the command line and from files, and what is wrong with them."""

import pytest

from alignzoo import BadInput
from alignzoo.record import resolve_run_folder
from alignzoo_compare.cell import Cell
from alignzoo_compare.command import CompareCommand
from alignzoo_compare.grid import Grid, default_entries


def compose(tmp_path, text=None, **options):
    if text is not None:
        (tmp_path / "grid.yaml").write_text(text)
        options["grid"] = str(tmp_path / "grid.yaml")
    return CompareCommand(**options).compose()[0]


def test_the_standard_entries_are_always_there(tmp_path):
    grid = compose(tmp_path, algorithms=["kto"])
    assert list(grid.entries) == [
        "base", "best-of-n", "sft", "sft-chosen", "raft", "random-reward", "kto",
    ]  # fmt: skip
    assert grid.tasks == ("style", "sums")


def test_ppo_brings_its_learned_reward(tmp_path):
    assert "ppo-learned" in compose(tmp_path, algorithms=["ppo"]).entries


def test_all_installed_algorithms_that_answer_prompts_are_compared_by_default():
    entries, left_out = default_entries()
    assert {"dpo", "grpo", "ppo", "rlaif", "spin", "kto", "xpo"} <= set(entries)
    assert sorted(line.split(":")[0] for line in left_out) == ["distill", "pretrain", "reward"]


def test_a_file_has_entries_with_settings_and_flags_override_it(tmp_path):
    text = """
tasks: [style]
seeds: 4
budget: 1e12flops
common: {max_new_tokens: 32}
entries:
  dpo:
  ipo: {algorithm: dpo, options: {loss_type: ipo}}
"""
    grid = compose(tmp_path, text, seeds=2)
    assert grid.entries["dpo"] == {"algorithm": "dpo"}
    assert grid.entries["ipo"] == {"algorithm": "dpo", "options": {"loss_type": "ipo"}}
    assert (grid.seeds, grid.budget, grid.common) == (2, "1e12flops", {"max_new_tokens": 32})
    assert Grid.from_dict(grid.as_dict()) == grid


def test_one_algorithm_under_two_names_is_one_entry(tmp_path):
    text = """
entries:
  grpo:
  gspo: {algorithm: grpo, options: {loss_type: gspo}}
  gspo-twice: {algorithm: grpo, options: {loss_type: gspo, iterations: 2}}
  grpo-long: {algorithm: grpo, lora_rank: 32}
"""
    (tmp_path / "grid.yaml").write_text(text)
    grid, notes = CompareCommand(grid=str(tmp_path / "grid.yaml")).compose()
    assert list(grid.entries)[-3:] == ["grpo", "gspo-twice", "grpo-long"]
    assert notes == ["gspo: at these settings it is grpo"]


@pytest.mark.parametrize(
    ("budget", "track", "amount"),
    [("1e12flops", "flops", 1e12), ("1e12", "flops", 1e12), ("2000feedback", "feedback", 2000)],
)
def test_a_budget_decides_the_track(tmp_path, budget, track, amount):
    grid = compose(tmp_path, algorithms=["sft"], budget=budget)
    assert (grid.track, grid.budget_amount) == (track, amount)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a grid is a mapping"),
        ("task: style", "unknown key 'task'"),
        ("entries: 3", "a list of algorithms or a mapping"),
        ("entries: {dpo: {lr: 1}}", "unknown setting 'lr'"),
        ("entries: {dpo: {seed: 1}}", "the same for all entries"),
        ("entries: {dpo: {options: {gamma: 1}}}", "unknown option 'gamma'"),
        ("entries: {dpo: {options: {beta: -1}}}", "option --beta: -1 is not allowed"),
        ("entries: {x: {algorithm: nope}}", "unknown algorithm 'nope'"),
        ("entries: {x: {algorithm: ./x.py}}", "is Python code"),
        ("tasks: [nope]", "unknown task 'nope'"),
        ("tasks: [pairs]", "'pairs' has no prompts to train on"),
        ("budget: much", "is not an amount"),
        ("common: {nope: 1}", "unknown setting 'nope'"),
        ("common: {seed: 1}", "not one of all runs"),
        ("common: {max_new_tokens: 0}", "option --max-new-tokens: 0 is not allowed"),
        ("entries: {dpo: {temperature: 2}}", "the same for all entries"),
        ("seeds: many", "option --seeds"),
        ("trials: 9", "option --trials"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        compose(tmp_path, text)


def test_an_unknown_algorithm_is_refused_with_similar_names(tmp_path):
    with pytest.raises(BadInput, match="unknown algorithm 'dpoo'") as caught:
        compose(tmp_path, algorithms=["dpoo"])
    assert "dpo" in caught.value.hint


def test_the_run_of_a_cell_has_a_name_that_a_folder_can_have():
    cell = Cell("final", "first:dpo", "sums,held_out=9", 0, {})
    resolve_run_folder("runs", cell.name)
    assert Cell("final", "dpo", "sums", 1, {}).name == "dpo.sums.final1"

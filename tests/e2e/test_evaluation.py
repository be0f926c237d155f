"""Evaluation inside a run: item by item, with the base beside the model."""

from __future__ import annotations

import json
from dataclasses import astuple

import pytest

from alignzoo import discovery
from alignzoo.cli import status
from alignzoo.evaluation import Estimate, Evaluation, compare_evaluations
from alignzoo.session.session import execute, recipe_for


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    settings = {"output_dir": str(tmp_path_factory.mktemp("runs")), "task": "sums", "steps": 6}
    settings |= {"batch_size": 8, "eval_size": 12, "eval_every": 2, "learning_rate": 5e-3}
    return execute(recipe_for("sft", settings)).folder


def items(folder, phase: str) -> list[dict]:
    rows = [json.loads(x) for x in (folder / "evals.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def test_every_item_is_on_disk_for_every_evaluation(run_folder):
    for phase, step in (("before", 0), ("step 2", 2), ("step 4", 4), ("after", 6)):
        rows = items(run_folder, phase)
        assert [row["item"] for row in rows] == list(range(12))
        assert {row["step"] for row in rows} == {step}
    results = json.loads((run_folder / "run.json").read_text())["results"]
    assert list(results) == ["before", "step 2", "step 4", "after"]


def test_the_table_is_the_mean_of_the_items(run_folder):
    results = json.loads((run_folder / "run.json").read_text())["results"]
    for phase in results:
        rows = items(run_folder, phase)
        scores = [row["score"] for row in rows]
        assert results[phase]["score"]["mean"] == pytest.approx(sum(scores) / 12)
        drift = [row["logprob"] - row["ref_logprob"] for row in rows]
        assert results[phase]["kl"]["mean"] == pytest.approx(sum(drift) / 12)


def test_the_loss_on_held_out_rows_can_be_left_out(run_folder, tmp_path):
    settings = {"output_dir": str(tmp_path), "task": "sums", "steps": 6, "eval_held_out": False}
    settings |= {"batch_size": 8, "eval_size": 12, "eval_before": False, "learning_rate": 5e-3}
    folder = execute(recipe_for("sft", settings)).folder
    both = [json.loads((x / "run.json").read_text())["results"] for x in (run_folder, folder)]
    with_loss, without = (results["after"] for results in both)
    assert {name for name in with_loss if name not in without} == {"held-out/loss"}
    assert without["score"] == with_loss["score"]


def test_a_change_is_the_mean_of_the_differences_on_the_same_items():
    def evaluation(scores, held_out):
        items = [
            {
                "item": i, "score": score, "length": 10 + i, "ended": True, "logprob": -2.0,
                "ref_logprob": -3.0 if i else None, "measures": {"polite": 1.0} if i == 1 else {},
            }
            for i, score in enumerate(scores)
        ]  # fmt: skip
        summary = {name: Estimate(0.0) for name in ("score", "kl", "length", "polite")}
        return Evaluation(summary | {"held-out/loss": Estimate(held_out)}, items)

    before, after = evaluation([0.1, 0.5, 0.3], 0.7), evaluation([0.3, 0.5, 0.7], 0.6)
    changes = compare_evaluations(before, after)
    # Differences 0.2, 0, 0.4: mean 0.2, deviation 0.2, Student's t of 2 degrees 4.302653.
    half = 4.302653 * 0.2 / 3**0.5
    assert astuple(changes["score"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half, 3))
    assert changes["kl"].n == 2
    assert changes["length"].mean == 0.0
    assert changes["polite"] == Estimate(0.0)  # one item has no interval
    assert changes["held-out/loss"].mean == pytest.approx(-0.1)
    assert changes["held-out/loss"].low is None


def test_before_training_the_model_is_its_base_and_afterwards_not(run_folder):
    for row in items(run_folder, "before"):
        assert row["logprob"] == pytest.approx(row["ref_logprob"], abs=1e-3)
    assert any(abs(r["logprob"] - r["ref_logprob"]) > 0.01 for r in items(run_folder, "after"))


def test_the_score_is_the_task_s_and_the_seeds_are_the_same(run_folder):
    from alignzoo_suite.sums import Sums

    task = Sums()
    rows = task.rows("prompts", "dev")
    for phase in ("before", "after"):
        for item in items(run_folder, phase):
            row = rows[item["item"]]
            assert item["prompt"] == row["prompt"][0]["content"]
            assert item["score"] == task.score(row, item["completion"])
    assert [r["seed"] for r in items(run_folder, "before")] == [
        r["seed"] for r in items(run_folder, "after")
    ]


def test_a_run_can_be_trained_further_and_is_the_base_then(run_folder, tmp_path):
    settings = {"model": str(run_folder), "output_dir": str(tmp_path), "task": "sums", "steps": 2}
    settings |= {"batch_size": 4, "eval_size": 12}
    after = json.loads((run_folder / "run.json").read_text())["results"]["after"]
    facts = json.loads((execute(recipe_for("dpo", settings)).folder / "run.json").read_text())
    assert facts["results"]["before"]["score"]["mean"] == after["score"]["mean"]
    assert facts["results"]["before"]["kl"]["mean"] == pytest.approx(0.0, abs=1e-4)


def test_what_a_task_measures_is_a_mean_over_the_items_it_applies_to(tmp_path):
    settings = {"task": "constitution", "steps": 0, "eval_size": 12, "output_dir": str(tmp_path)}
    folder = execute(recipe_for("sft", settings)).folder
    results = json.loads((folder / "run.json").read_text())["results"]["after"]
    rows = items(folder, "after")
    assert {name for row in rows for name in row["measures"]} == {
        "harmful", "bare_refusals", "over_refusals", "insults",
    }  # fmt: skip
    for name in ("harmful", "over_refusals", "insults"):
        values = [row["measures"][name] for row in rows if name in row["measures"]]
        assert results[name]["n"] == len(values) < 13
        assert results[name]["mean"] == pytest.approx(sum(values) / len(values))
    assert results["harmful"]["n"] + results["over_refusals"]["n"] == 12 == results["insults"]["n"]


def test_a_run_evaluated_again_gives_what_it_gave(tmp_path, capsys):
    settings = {"output_dir": str(tmp_path), "task": "sums", "steps": 2, "batch_size": 4}
    settings |= {"eval_size": 12, "temperature": 0.3, "max_new_tokens": 9, "stop_text": ["="]}
    folder = execute(recipe_for("sft", settings)).folder
    after = json.loads((folder / "run.json").read_text())["results"]["after"]
    assert status(["eval", str(folder), "--limit", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["sums"]["summary"]
    assert found["length"]["mean"] == after["length"]["mean"] < 9
    assert found["score"] == after["score"]


def test_a_run_answers_the_prompts_of_the_split_that_is_asked_for(tmp_path, capsys):
    task = discovery.load_plugin("tasks", "style")()
    settings = {"output_dir": str(tmp_path), "steps": 0, "eval_size": 8, "max_new_tokens": 4}
    losses = set()
    for split in ("dev", "test"):
        recipe = recipe_for("sft", settings, {"eval_split": split, "name": split})
        folder = execute(recipe).folder
        wanted = [row["prompt"][0]["content"] for row in task.rows("prompts", split)[:8]]
        assert [row["prompt"] for row in items(folder, "before")] == wanted
        results = json.loads((folder / "run.json").read_text())["results"]["before"]
        losses.add(results["held-out/loss"]["mean"])
        command = ["eval", str(folder), "--split", split, "--limit", "8", "--json"]
        assert status(command) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["split"] == split
        assert found["tasks"]["style"]["summary"]["score"] == results["score"]
    assert len(losses) == 1  # held-out rows are those of dev either way


def test_a_task_without_a_dev_split_is_evaluated_on_test_and_told_so(tmp_path, capfd):
    task = tmp_path / "toy.py"
    task.write_text(
        "from alignzoo import hookimpl\n"
        "class Toy:\n"
        "    views = ('prompts',)\n"
        "    worst, best = 0.0, 1.0\n"
        "    def rows(self, view, split):\n"
        "        assert split in ('train', 'test')\n"
        "        return [{'prompt': f'{split} {n}'} for n in range(4)]\n"
        "    def score(self, row, completion):\n"
        "        return 0.5\n"
        "    @hookimpl\n"
        "    def alignzoo_round_end(self, run, index): pass\n"
    )
    command = ["run", "rloo", "--task", str(task), "--steps", "1", "--batch-size", "2"]
    command += ["--max-new-tokens", "4", "--output-dir", str(tmp_path), "--name", "it"]
    assert status(command) == 0
    assert "task 'toy' has no dev split: it is evaluated on test" in capfd.readouterr().out
    prompts = {row["prompt"] for row in items(tmp_path / "it", "after")}
    assert prompts == {f"test {n}" for n in range(4)}
    assert status(["eval", "zoo-tiny", "--tasks", str(task), "--split", "test"]) == 0
    assert "no dev split" not in capfd.readouterr().out


def test_data_alone_has_no_test_split(tmp_path, capsys):
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    assert status(["run", "sft", "--data", str(data), "--eval-split", "test"]) == 2
    assert "only a task with prompts has a test split" in capsys.readouterr().err
    assert status(["run", "reward", "--eval-split", "test"]) == 2
    assert "answers no held-out prompts in this run" in capsys.readouterr().err

"""The tasks `retention` and `unlearn`, and the add-on `retention`."""

import json

import pytest

from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for
from alignzoo_suite import ZOO_TINY
from alignzoo_suite.retention import Retention
from alignzoo_suite.retention_loss import RetentionLoss, find_embedded
from alignzoo_suite.unlearn import Unlearn


def test_one_task_is_trained_on_and_two_are_evaluated() -> None:
    task = Retention(demonstrations=20)
    for view in ("demonstrations", "preferences", "feedback", "prompts"):
        assert {row["task"] for row in task.rows(view, "train")} == {"style"}
    for split in ("dev", "test"):
        rows = task.rows("prompts", split)
        assert [row["task"] for row in rows[:4]] == ["style", "sums"] * 2
        assert len(rows) >= 300
    sums = {"task": "sums", "a": 27, "b": 15}
    assert task.score(sums, "The answer is 42.") == 1
    assert task.measures(sums, "The answer is 41.") == {"sums": 0}
    style = {"task": "style", "topic": "sea"}
    assert task.score(style, "The waves are bright and calm. I love the boats.") == 1


def test_one_task_is_to_be_forgotten_and_one_to_be_kept() -> None:
    task = Unlearn()
    for split in ("train", "dev"):
        rows = task.rows("feedback", split)
        assert {(row["task"], row["label"]) for row in rows} == {("style", True), ("sums", False)}
    assert [row["task"] for row in task.rows("prompts", "test")[:4]] == ["style", "sums"] * 2
    sums = {"task": "sums", "a": 27, "b": 15}
    assert task.score(sums, "The answer is 42.") == 0
    assert task.score(sums, "No idea.") == 1
    assert task.measures(sums, "The answer is 42.") == {"sums": 1}
    style = {"task": "style", "topic": "sea"}
    assert task.score(style, "The waves are bright and calm. I love the boats.") == 1


def test_the_add_on_measures_what_a_run_forgets(tmp_path) -> None:
    settings = {"task": "style", "eval_size": 4, "max_new_tokens": 4, "addons": ["retention"]}
    settings |= {"steps": 3, "batch_size": 4, "learning_rate": 0.05, "output_dir": str(tmp_path)}
    folder = execute(recipe_for("sft", settings)).folder
    results = json.loads((folder / "run.json").read_text())["results"]
    before, after = (results[phase]["retention/loss"] for phase in ("before", "after"))
    assert before["n"] == after["n"] == 200
    assert 0.3 < before["mean"] < 1.5 < after["mean"]
    assert find_embedded(str(folder)) == find_embedded(str(ZOO_TINY)) == "zoo-tiny"


def test_a_model_of_which_no_text_is_known_is_refused(tmp_path) -> None:
    assert find_embedded("someone/model") is None
    with pytest.raises(BadInput, match="no text is known that 'someone/model'"):
        RetentionLoss().alignzoo_check(recipe_for("sft", {"model": "someone/model"}))

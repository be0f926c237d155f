"""best-of-n trains nothing, and answers held-out prompts with the best of several completions."""

from __future__ import annotations

import json
import math

import pytest

from alignzoo import BadInput
from alignzoo.policy import locate_model
from alignzoo.session.session import Permissions, execute, prepare, recipe_for
from alignzoo.ui import Silent


def settings(tmp_path, **more) -> dict:
    return {"output_dir": str(tmp_path), "name": "it", "eval_size": 8, "max_new_tokens": 40, **more}


def evals(folder, phase: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def test_the_answers_are_the_best_of_n(tmp_path):
    recipe = recipe_for("best-of-n", settings(tmp_path, task="sums", options={"n": 4}))
    result = execute(recipe)
    after = result.after.summary
    answers = evals(result.folder, "after")
    # The reward is the task's score: the chosen completion has the best of its group.
    assert after["score"].mean == after["reward"].mean == sum(x["score"] for x in answers) / 8
    assert after["reward"].mean > after["reward/drawn"].mean > 0
    assert after["kl"].mean == pytest.approx(math.log(4) - 3 / 4)
    assert not {"reward", "answer/flops"} & result.before.summary.keys()

    facts = json.loads((result.folder / "run.json").read_text())
    spent = facts["ledger"]
    assert spent["total_flops"] == spent["flops"]["generation"]
    assert spent["total_flops"] == pytest.approx(8 * after["answer/flops"].mean)
    assert spent["feedback"]["verifier_calls"] == 8 * 4
    # The run has no model of its own.
    assert sorted(p.name for p in result.folder.iterdir()) == ["evals.jsonl", "run.json"]
    assert not result.trains
    with pytest.raises(BadInput, match="trained nothing") as error:
        locate_model(str(result.folder))
    assert "zoo-tiny" in error.value.hint


def test_prompts_of_a_file_have_a_reward_but_no_score(tmp_path):
    data = tmp_path / "prompts.jsonl"
    things = "morning airport garden river kitchen".split()
    asked = (f"Describe the {a} and the {b}." for a in things for b in things if a != b)
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in asked]
    data.write_text("\n".join(map(json.dumps, rows)))
    # The shortest of four wins.
    more = {"data": str(data), "reward": ["length,most=0,soft=40"], "options": {"n": 4}}
    result = execute(recipe_for("best-of-n", settings(tmp_path, **more, top_k=20)))
    after = result.after.summary
    assert "score" not in after and "kl" not in after  # of top-k draws the bound says nothing
    assert after["reward"].mean > after["reward/drawn"].mean
    lengths = [min(item["length"], 40) for item in evals(result.folder, "after")]
    assert after["reward"].mean == pytest.approx(-sum(lengths) / 40 / len(lengths))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"steps": 3}, "--steps"),
        ({"eval_size": 0}, "--eval-size"),
        ({"temperature": 0.0}, "--temperature"),
    ],
)
def test_bad_settings_are_refused(tmp_path, more, told):
    recipe = recipe_for("best-of-n", settings(tmp_path, task="sums", **more))
    with pytest.raises(BadInput, match=told):
        prepare(recipe, Permissions(), resume=False, ui=Silent())
    assert not (tmp_path / "it").exists()

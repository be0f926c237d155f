"""A reward model: trained on pairs, judged on held-out ones, and the judge of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_on_policy import CODE

from alignzoo.batch import collate
from alignzoo.cli import status
from alignzoo.data import Preferences
from alignzoo.errors import BadInput
from alignzoo.rewards import ModelReward
from alignzoo.session.session import execute, recipe_for

SETTINGS = {"steps": 12, "batch_size": 16, "eval_size": 60, "seed": 1}


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    return execute(
        recipe_for("reward", {"output_dir": str(out), "name": "judge", **SETTINGS})
    ).folder


def test_it_is_judged_on_held_out_pairs_and_writes_nothing(judge: Path):
    results = json.loads((judge / "run.json").read_text())["results"]
    before, after = results["before"], results["after"]
    accuracy = after["held-out/rewards/accuracies"]
    assert accuracy["n"] == 60
    assert accuracy["low"] < accuracy["mean"] < accuracy["high"]
    assert after["held-out/loss"]["mean"] < before["held-out/loss"]["mean"]
    assert 0 < after["calibration/ece"]["mean"] < 0.5
    assert 0 < after["calibration/brier"]["low"] < after["calibration/brier"]["high"] < 0.5
    assert "score" not in after
    assert (judge / "evals.jsonl").read_text() == ""
    assert (judge / "adapter/score_head.safetensors").is_file()


@pytest.fixture
def learner(make_run, judge: Path, tmp_path: Path):
    path = tmp_path / "reinforce.py"
    path.write_text(CODE)
    run = make_run(
        str(path), reward=[str(judge)], max_new_tokens=20, batch_size=4, micro_tokens=200
    )
    run.hook.alignzoo_start(run=run)
    return run


def test_it_scores_what_another_run_writes(learner, judge: Path):
    batch = learner.hook.alignzoo_sample(run=learner, rows=learner.data.train[:4])
    reward = learner.plugins.get_plugin(f"reward {judge.name}")
    with torch.no_grad():
        alone = [float(batch_of_one(reward, batch, n)) for n in range(len(batch.tokens))]
    assert batch["rewards"].tolist() == pytest.approx(alone, abs=1e-4)
    assert len(set(batch["rewards"].tolist())) > 4
    assert learner.ledger.flops["reward"] > 0
    assert learner.ledger.feedback["verifier_calls"] == 0  # the task's score is not asked


def batch_of_one(reward, batch, n: int):
    part = batch.select([int(batch.group[n])])
    member = n - int((batch.group < batch.group[n]).sum())
    return part.last(reward.model.scores(part))[member]


def test_by_way_of_the_text_it_scores_the_same(learner, judge: Path):
    """Whole pairs survive the way through text; what a model leaves unfinished gains an EOS."""
    reward = learner.plugins.get_plugin(f"reward {judge.name}")
    rows = learner.task.rows("preferences", "dev")[:6]
    batch = collate([Preferences.encode(row, learner.codec, 1024).example for row in rows])
    assert reward.same_tokens
    direct = reward.alignzoo_reward(learner, batch)
    reward.same_tokens = False
    torch.testing.assert_close(reward.alignzoo_reward(learner, batch), direct, atol=1e-4, rtol=0)


def test_it_answers_nothing(judge: Path, capfd):
    for command in ("eval", "chat"):
        words = ["--prompt", "hello"] if command == "chat" else []
        assert status([command, str(judge), *words]) == 2
        assert "--reward" in capfd.readouterr().err


def test_what_is_no_reward_model_is_refused(make_run, tmp_path: Path):
    folder = make_run("dpo").model.save(tmp_path)
    with pytest.raises(BadInput, match="no score head"):
        ModelReward(str(tmp_path / folder))
    with pytest.raises(BadInput, match="unknown reward"):
        make_run("grpo", reward=["nobody"])


def test_margins_come_from_the_data(make_run, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n}?", "chosen": "a b", "rejected": "c"} for n in range(20)]
    rows[3]["margin"] = 2.5
    path.write_text("\n".join(json.dumps(row) for row in rows))
    run = make_run("reward", data=str(path))
    assert sorted({e.row.get("margin", 0.0) for e in run.data.train}) == [0.0, 2.5]
    plain = run.data.train[:1]
    marked = [next(e for e in run.data.train if "margin" in e.row)]
    with torch.no_grad():
        losses = [run.hook.alignzoo_loss(run=run, batch=collate(e)).mean for e in (plain, marked)]
    assert losses[1] > losses[0] + 1

    rows[4]["margin"] = "much"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(BadInput, match=r"row 5.*margin.*much"):
        make_run("reward", data=str(path))

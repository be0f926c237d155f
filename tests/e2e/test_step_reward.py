"""A reward model of steps: trained on labelled ones, and the judge of another run."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch
from test_on_policy import CODE

from alignzoo.batch import Example, collate
from alignzoo.cli import status
from alignzoo.data import step_ends
from alignzoo.errors import BadInput
from alignzoo.policy import load_policy, locate_model
from alignzoo.policy.heads import SCORE_HEAD_FILE
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train
from alignzoo_zoo.grpo.step_credit import step_advantages

SETTINGS = {"batch_size": 32, "seed": 1, "options": {"loss_type": "steps"}}


def additions(path: Path, rows: int) -> str:
    """Steps of small additions, of which about half are wrong."""
    random = Random(0)
    lines = []
    for n in range(rows):
        steps, labels = [], []
        for _ in range(random.randint(1, 4)):
            a, right = random.randint(0, 2), random.random() < 0.5
            steps.append(f"{a} + 1 = {a + 1 if right else (a + 1 + random.randint(1, 8)) % 10}.")
            labels.append(right)
        row = {"prompt": f"Add some, {n}.", "completions": steps, "labels": labels}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    data = additions(folder / "steps.jsonl", 900)
    settings = {**SETTINGS, "data": data, "output_dir": str(folder), "name": "judge", "steps": 60}
    return execute(recipe_for("reward", settings)).folder


def test_it_learns_the_rule(judge: Path):
    facts = json.loads((judge / "run.json").read_text())
    after = facts["results"]["after"]
    steps, majority = after["held-out/steps/accuracy"], after["held-out/steps/majority"]["mean"]
    assert steps["n"] > 150
    assert majority < 0.6
    assert steps["low"] > majority + 0.2
    solutions = after["held-out/solutions/accuracy"]
    assert solutions["low"] > after["held-out/solutions/majority"]["mean"]
    assert after["calibration/brier"]["mean"] < 0.25 and after["calibration/ece"]["mean"] < 0.3
    assert "score" not in after
    assert facts["ledger"]["feedback"]["labels"] > 1500  # of 810 solutions


def test_its_reward_is_that_of_the_worst_step(judge: Path, make_run, tmp_path: Path):
    path = tmp_path / "reinforce.py"
    path.write_text(CODE)
    learner = make_run(str(path), reward=[str(judge)], max_new_tokens=8, batch_size=4)
    learner.hook.alignzoo_start(run=learner)
    reward = learner.plugins.get_plugin(f"reward {judge.name}")
    assert reward.model.score_head.step_separator == "\n"

    texts = ["0 + 1 = 1.\n1 + 1 = 2.", "0 + 1 = 1.\n1 + 1 = 7.\n2 + 1 = 3.", "2 + 1 = 3", "\n"]
    codec = learner.codec
    examples = [
        Example(codec.prompt("Add some, 3."), [codec.completion("Add some, 3.", text)])
        for text in texts
    ]
    batch = collate(examples)
    found = reward.alignzoo_reward(learner, batch)
    assert ((found > 0) & (found < 1)).all()
    assert found[1] < min(found[0], found[2])
    for n, text in enumerate(texts):
        ids = examples[n].completions[0]
        with torch.no_grad():
            probabilities = reward.model.scores(batch.select([n]))[0].sigmoid()
        steps = text.split("\n")
        ends = step_ends(codec, ids, steps, "\n") if text.strip() else [len(ids) - 1]
        assert len(ends) == (len(steps) if text.strip() else 1)
        assert float(found[n]) == pytest.approx(float(probabilities[ends].min()), abs=1e-5)


def test_the_head_says_what_it_was_trained_for(judge: Path, make_run, tmp_path: Path):
    def kind(folder: Path):
        return load_policy(str(folder)).score_head.step_separator

    assert kind(judge) == "\n"
    settings = {"steps": 1, "batch_size": 4, "eval_size": 0, "model": str(judge)}
    pairs = execute(recipe_for("reward", {**settings, "output_dir": str(tmp_path)})).folder
    assert kind(pairs) is None  # it goes on from the steps' head, and is none any more
    assert (locate_model(str(pairs)).score_head or Path()).name == SCORE_HEAD_FILE


def test_labels_of_one_class_are_refused(tmp_path: Path, capfd):
    rows = [{"prompt": str(n), "completions": ["a", "b"], "labels": [1, 1]} for n in range(20)]
    data = tmp_path / "d.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "runs"
    words = ["run", "reward", "--loss-type", "steps", "--data", str(data), "--output-dir", str(out)]
    assert status(words) == 2
    message = capfd.readouterr().err
    assert "column 'labels' is true in all 18 rows" in message  # and in the two held out
    assert "add steps labelled false" in message and not out.exists()
    assert status([*words[:-2], "--step-separator", ""]) == 2


def test_a_separator_inside_a_step_is_noted(make_run, tmp_path: Path):
    rows = [{"prompt": str(n), "completions": ["a\nb", "c"], "labels": [1, 0]} for n in range(20)]
    data = tmp_path / "d.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    run = make_run("reward", data=str(data), options={"loss_type": "steps"})
    note = "a step that contains the separator '\\n'"
    assert any(note in line for line in run.data.report.lines())
    other = {"loss_type": "steps", "step_separator": r"\n\n"}
    run = make_run("reward", data=str(data), options=other)
    assert not any("contains the separator" in line for line in run.data.report.lines())


def test_grpo_gives_credit_to_tokens_by_the_rewards_of_steps(judge: Path, make_run):
    settings = {"task": "sums", "batch_size": 2, "max_new_tokens": 48, "steps": 1}
    options = {"group_size": 3, "credit": "steps"}
    run = make_run("grpo", reward=[str(judge)], options=options, **settings)
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    rewards = batch["step_rewards"]
    assert rewards.shape == batch.tokens.shape == batch["advantages"].shape
    worst = torch.where(rewards > 0, rewards, 1.0).amin(-1)
    assert torch.equal(batch[f"reward/{judge.name}"], worst)
    expected = step_advantages(rewards, batch.group, "group")
    assert torch.equal(batch["advantages"], expected) and expected.any()
    train(run)
    assert run.step == 1


@pytest.mark.parametrize("rewards", [[], ["random"], ["random", "task"]])
def test_credit_of_steps_needs_a_reward_of_steps(make_run, rewards):
    run = make_run("grpo", task="sums", reward=rewards, options={"credit": "steps"})
    with pytest.raises(BadInput, match="--credit steps"):
        run.hook.alignzoo_start(run=run)

"""Whole runs in an environment: every algorithm that draws, a kill in an episode, evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from resuming import assert_same_run

from alignzoo.environments import Episode
from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for

HERE = Path(__file__).parents[1] / "environments"
TOYS, OUTSIDE = str(HERE / "toys.py"), str(HERE / "outside.py")
SETTINGS = {
    "task": "style", "steps": 2, "batch_size": 2,
    "max_new_tokens": 80, "eval_size": 0, "checkpoint_every": 1, "rollouts_every": 1,
}  # fmt: skip
OPTIONS = {"grpo": {"group_size": 2}, "ppo": {"round_prompts": 0, "group_size": 2}}


@pytest.fixture
def recipe(tmp_path):
    def make(name: str, algorithm: str = "grpo", environment: str = TOYS, **more):
        settings = {**SETTINGS, "environment": environment, "output_dir": str(tmp_path)}
        options = OPTIONS.get(algorithm, {"group_size": 2})
        return recipe_for(algorithm, {**settings, "name": name, "options": options, **more})

    return make


def rows_of(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def kill_in_answer(monkeypatch, recipe, number: int) -> None:
    """Start a run that is killed when an environment answers for the n-th time."""
    answer, calls = Episode.answer, []

    def killed(self, text):
        calls.append(text)
        if len(calls) == number:
            raise KeyboardInterrupt
        return answer(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Episode, "answer", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe)


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce", "ppo", "raft"])
def test_an_algorithm_that_draws_completions_plays_episodes(recipe, algorithm):
    result = execute(recipe("run", algorithm, eval_size=2 if algorithm == "raft" else 0))
    for found in filter(None, (result.before, result.after)):
        scores = [item["score"] for item in found.items]
        assert found.summary["score"].mean == pytest.approx(sum(scores) / len(scores))
        assert all(len(item["turns"]) in (1, 3, 5) for item in found.items)
    row = rows_of(result.folder, "rollouts.jsonl")[0]
    mine = [turn for turn in row["turns"] if turn[0] == "model"]
    assert row["reward"] == pytest.approx(sum(turn[2] for turn in mine), abs=1e-4)
    assert row["completion"].split("\n") == [said for _, said, _ in row["turns"]]
    assert 1 <= rows_of(result.folder, "metrics.jsonl")[0]["completions/mean_turns"] <= 3


def test_the_best_of_several_episodes(tmp_path):
    settings = {name: SETTINGS[name] for name in ("task", "max_new_tokens")}
    settings |= {
        "eval_size": 2,
        "environment": TOYS,
        "output_dir": str(tmp_path),
        "options": {"n": 2},
    }
    result = execute(recipe_for("best-of-n", settings))
    assert result.after.summary["score"].mean == pytest.approx(result.after.summary["reward"].mean)


def test_an_environment_that_nothing_would_meet_is_refused(tmp_path):
    settings = {"environment": TOYS, "output_dir": str(tmp_path), "eval_size": 0}
    with pytest.raises(BadInput, match="--environment: dpo generates no completions"):
        execute(recipe_for("dpo", settings))


def test_a_run_that_is_killed_in_an_episode_comes_out_the_same(recipe, monkeypatch):
    straight = execute(recipe("straight")).folder
    kill_in_answer(monkeypatch, recipe("broken"), 17)
    broken = straight.with_name("broken")
    assert len(rows_of(broken, "metrics.jsonl")) in (1, 2)  # killed in the round after
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)


def test_an_environment_with_a_state_outside_is_replayed(recipe, monkeypatch):
    whole = execute(recipe("whole", environment=OUTSIDE)).folder
    assert len(list((whole / "episodes").iterdir())) == 2

    kill_in_answer(monkeypatch, recipe("again", environment=OUTSIDE), 5)
    again = whole.with_name("again")
    assert len((again / "episodes/round-0.jsonl").read_text().splitlines()) == 4 + 4
    shutil.copytree(whole / "episodes", again / "episodes", dirs_exist_ok=True)
    monkeypatch.setattr(Episode, "begin", None)  # nothing is asked again
    monkeypatch.setattr(Episode, "answer", None)
    execute(recipe("again", environment=OUTSIDE), resume=True)
    assert_same_run(again, whole)


def test_an_episode_goes_on_behind_its_kept_steps(recipe, monkeypatch):
    kill_in_answer(monkeypatch, recipe("run", environment=OUTSIDE), 7)
    path = Path(recipe("run").output_dir) / "run/episodes/round-0.jsonl"
    before = path.read_text()
    with path.open("a") as file:
        file.write('{"episode": 1, "tu')  # cut off
    folder = execute(recipe("run", environment=OUTSIDE), resume=True).folder
    after = path.read_text()
    assert after.startswith(before) and all(json.loads(line) for line in after.splitlines())
    kept = [row for row in map(json.loads, before.splitlines()) if row["turn"]]
    drawn = [row for row in rows_of(folder, "rollouts.jsonl") if row["round"] == 0]
    said = {turn[1] for row in drawn for turn in row["turns"] if turn[0] == "environment"}
    assert said >= {row["observation"] for row in kept if not row["done"]}


def test_an_evaluation_outside_of_a_run_plays_the_runs_episodes(recipe, tmp_path):
    from alignzoo.cli.evaluate import own_environment
    from alignzoo.evaluation import EvaluationSettings, evaluate_model
    from alignzoo.ui import Silent

    result = execute(recipe("run", steps=0, eval_size=2))
    sampling = {"max_new_tokens": 80}
    settings = EvaluationSettings(limit=2, environment=TOYS, sampling=sampling)
    found = evaluate_model(
        str(result.folder), [SETTINGS["task"]], settings, trust_remote_code=False, ui=Silent()
    )
    (evaluation,) = found.values()
    same = ("completion", "score", "turns")
    for one, other in zip(evaluation.items, result.after.items, strict=True):
        assert {k: one[k] for k in same} == {k: other[k] for k in same}
    with pytest.raises(BadInput, match="names a Python file as its environment"):
        own_environment(str(result.folder))

"""RLAIF end to end: labels train DPO or a reward model, ratings are rewards; all are logged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resuming import assert_same_result, interrupt

from alignzoo import discovery
from alignzoo.errors import BadInput, RunFailed
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train
from alignzoo_judges.local import LocalJudge

SETTINGS = {"task": "constitution", "batch_size": 4, "max_new_tokens": 40, "eval_size": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def lines_of(folder: Path, name: str = "feedback.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def recipe(tmp_path: Path, name: str, **changes):
    return recipe_for(
        "rlaif", {**SETTINGS, "steps": 2, "output_dir": str(tmp_path), "name": name, **changes}
    )


def judge_file(tmp_path: Path, body: str) -> str:
    """Write a judge plugin to a file."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from alignzoo_judges import Judge\n\n\nclass Mine(Judge):\n"
        "    def answers(self, questions):\n"
        "        for n, question in enumerate(questions):\n"
        f"            yield n, {body}\n"
    )
    return str(path)


def started(make_run, **settings):
    run = make_run("rlaif", **SETTINGS, **settings)
    run.hook.alignzoo_start(run=run)
    return run


def test_labels_are_rewards_and_are_logged(make_run):
    run = started(make_run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:8])
    lines = lines_of(run.record.folder)
    assert len(lines) == 8 == len(batch)
    texts = run.texts(batch)
    for n, line in enumerate(lines):
        assert (line["step"], line["a"], line["b"]) == (1, texts[2 * n], texts[2 * n + 1])
        both = (line["a_first"][0] + line["b_first"][1]) / 2
        assert line["label"] == pytest.approx(both)
        assert batch["rewards"][2 * n : 2 * n + 2].tolist() == pytest.approx(
            [both, 1 - both], abs=1e-6
        )
        assert line["principle"] in ("harm", "respect", "alternatives", "over-refusal")
    same = [line for line in lines if line["a"] == line["b"]]
    assert all(line["label"] == 0.5 for line in same)
    assert run.ledger.feedback["judge_calls"] == 2 * (len(lines) - len(same))
    margins = [abs(2 * line["label"] - 1) for line in lines]
    assert run.round_metrics.numbers["judge/margin"] == pytest.approx(sum(margins) / 8)


def test_the_first_loss_is_ln_2_and_the_labels_move_the_policy(make_run):
    run = started(make_run, steps=6, learning_rate=0.003, options={"judge": "gold"})
    train(run)
    rows = lines_of(run.record.folder, "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert rows[-1]["rewards/accuracies"] > 0.5 and rows[-1]["kl"] > 0


def test_unanswered_pairs_are_left_out(make_run, tmp_path):
    body = "[float('nan')] * 2 if len(question.messages[0]['content']) % 3 else [0.9, 0.1]"
    run = started(make_run, options={"judge": judge_file(tmp_path, body)})
    rows = run.data.train[:40]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    lines = lines_of(run.record.folder)
    lost = [line for line in lines if line["label"] is None]
    assert len(lost) > 0 and len(batch) == 40 - len(lost) and len(lines) == 40
    assert run.round_metrics.numbers["rewards/rlaif/missing"] == pytest.approx(len(lost) / 40)
    # A judge that always prefers the first gives ties: both orders cancel.
    assert {line["label"] for line in lines} - {None} == {0.5}
    assert all(line["flips"] for line in lines if line["label"] and line["a"] != line["b"])


def test_a_judge_that_never_answers_ends_the_run_with_one_message(tmp_path):
    judge = judge_file(tmp_path, "[float('nan')] * 2")
    with pytest.raises(RunFailed, match="no usable answer"):
        execute(recipe(tmp_path, "mute", options={"judge": judge}))
    assert json.loads((tmp_path / "mute" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("rl", ["grpo,group_size=4", "rloo,group_size=2"])
def test_ratings_are_the_reward_of_another_algorithm(make_run, rl):
    run = started(make_run, options={"rl": rl, "direct": True})
    size = int(rl[-1])
    assert type(run.algorithm).__name__ == rl[:4].upper()
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:3])
    lines = lines_of(run.record.folder)
    assert [line["rating"] for line in lines] == pytest.approx(batch["rewards"].tolist(), abs=1e-6)
    assert len(lines) == 3 * size and all(-1 <= line["rating"] <= 1 for line in lines)
    # One principle for all completions of a prompt, so that they are comparable.
    for b in range(3):
        assert len({line["principle"] for line in lines[b * size : (b + 1) * size]}) == 1
    assert set(batch.columns) >= {"reward/rlaif", "advantages"}


def test_a_reward_model_is_trained_on_labels_first(tmp_path):
    data = tmp_path / "prompts.jsonl"
    rows = discovery.load_plugin("tasks", "constitution")().rows("prompts", "train")[:12]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = recipe(
        tmp_path, "ppo", task=None, data=str(data), model="zoo-critic",
        options={"rl": "ppo,iterations=1", "labels_per_prompt": 2},
    )  # fmt: skip
    folder = execute(wanted).folder
    labels = [line for line in lines_of(folder, "labels.jsonl") if "spent" not in line]
    told = [line for line in labels if line["label"] not in (None, 0.5)]
    pairs = lines_of(folder, "preferences.jsonl")
    asked = [line["prompt"][0]["content"] for line in labels]
    assert len(labels) == 24 and asked[::2] == asked[1::2] and len(set(asked)) == 12
    assert len({(line["a"], line["b"]) for line in labels}) > 12 and len(pairs) == len(told) > 12
    for line, pair in zip(told, pairs, strict=True):
        chosen = line["a"] if line["label"] > 0.5 else line["b"]
        assert pair["chosen"][0]["content"] == chosen != pair["rejected"][0]["content"]
        assert pair["chosen_probability"] == max(line["label"], 1 - line["label"])
    ledger = json.loads((folder / "run.json").read_text())["ledger"]
    assert ledger["feedback"]["pairs"] == 0 and ledger["feedback"]["judge_calls"] >= 2 * len(pairs)
    assert ledger["flops"]["reward_training"] > 0 and ledger["flops"]["reward"] > 0


def test_a_resumed_run_makes_the_remaining_comparisons(tmp_path, monkeypatch):
    changes = {"steps": 4, "checkpoint_every": 2, "options": {"rl": "dpo,round_prompts=16"}}
    asked: list[str] = []

    def answers(self, questions, answer=LocalJudge.answers):
        asked.extend(question.messages[-1]["content"] for question in questions)
        return answer(self, questions)

    monkeypatch.setattr(LocalJudge, "answers", answers)
    straight = execute(recipe(tmp_path, "straight", **changes))
    whole, asked[:] = list(asked), []
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "another"))
    again = recipe(tmp_path, "again", **changes)

    class Died(BaseException):  # as a kill, which no one catches
        pass

    def dying(self, questions):
        for n, found in enumerate(answers(self, questions)):
            if n == 11:
                raise Died
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(LocalJudge, "answers", dying)
        with pytest.raises(Died):
            execute(again)
    asked.clear()
    # In the middle of the round, checkpointed at 2.
    interrupt(again, monkeypatch, step=3, resume=True)
    assert len(asked) == len(whole) - 11 and set(asked) <= set(whole)
    asked.clear()
    resumed = execute(again, resume=True)
    assert asked == []  # the round has its labels
    assert_same_result(straight.folder, resumed.folder)
    assert lines_of(straight.folder) == lines_of(resumed.folder)


def test_the_judge_reasons_before_the_verdict(make_run):
    run = started(make_run, options={"think": 60})
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    lines = lines_of(run.record.folder)
    different = sum(line["a"] != line["b"] for line in lines)
    assert len(batch) <= 4
    assert run.ledger.feedback["judge_calls"] == 4 * different  # two texts and two verdicts each


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rl": "sft"}, "does not train on rewards"),
        ({"rl": "gpro"}, "gpro"),
        ({"rl": "grpo,group=4"}, "group"),
        ({"rl": "dpo,beta=-1"}, "beta"),
        ({"rl": "dpo,group_size=4"}, "unknown option 'group_size'"),
        ({"direct": True}, "--rl dpo trains on pairs"),
        ({"principles": "nowhere.yaml"}, "no such principles file"),
        ({"judge": "no/such/judge/there"}, "no folder"),
        ({"judge": "http://127.0.0.1:9/v1"}, "judge"),
    ],
)
def test_bad_input(tmp_path, options, problem):
    with pytest.raises(BadInput) as told:
        execute(recipe(tmp_path, "bad", options=options))
    assert problem in str(told.value)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"cache"}  # of rows as token ids: the same command may be given again


def test_a_reward_is_refused(tmp_path):
    with pytest.raises(BadInput, match="the judge is the only reward"):
        execute(recipe(tmp_path, "bad", reward=["length,most=3"]))

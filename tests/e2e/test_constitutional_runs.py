"""Constitutional AI, end to end: drafts, critiques and revisions are logged and trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from resuming import assert_same_result, interrupt, ledger_of

from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train
from alignzoo_judges import read_principles
from alignzoo_judges.local import LocalJudge
from alignzoo_zoo.constitutional.critique import Revision, revise

PRINCIPLES = read_principles().principles
PROMPTS = 10
SETTINGS = {"task": "constitution", "batch_size": 4, "max_new_tokens": 40, "eval_size": 0}
OPTIONS = {"revisions": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    from alignzoo import discovery

    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    rows = discovery.load_plugin("tasks", "constitution")().rows("prompts", "train")[:PROMPTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines_of(folder: Path, name: str = "revisions") -> list[dict]:
    lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return [line for line in lines if "spent" not in line]


def recipe(tmp_path: Path, data: str, name: str, **changes):
    settings = {**SETTINGS, "data": data, "task": None, "model": "zoo-critic", "options": OPTIONS}
    return recipe_for(
        "constitutional", {**settings, "output_dir": str(tmp_path), "name": name, **changes}
    )


# --- the dialogue


def prompts(*texts: str):
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_step_requests_a_critique_and_then_a_revision():
    asked = []

    def write(dialogues):
        asked.append(dialogues)
        return [f"{len(asked)}{n}" for n in range(len(dialogues))]

    found = revise(prompts("p", "q"), ["a", "b"], PRINCIPLES[:2], write)
    assert found == [Revision("harm", "10", "20"), Revision("respect", "11", "21")]
    critique, revision = asked
    assert [m["content"] for m in critique[0]] == ["p", "a", PRINCIPLES[0].critique]
    assert [m["content"] for m in revision[1]] == [
        "q", "b", PRINCIPLES[1].critique, "11", PRINCIPLES[1].revision,
    ]  # fmt: skip
    assert [m["role"] for m in revision[1]] == ["user", "assistant"] * 2 + ["user"]


def test_without_critique_and_with_examples():
    asked = []

    def write(dialogues):
        asked.append(dialogues)
        return ["new"]

    shown = [*prompts("e")[0], {"role": "assistant", "content": "f"}]
    found = revise(prompts("p"), ["a"], PRINCIPLES[:1], write, critique=False, examples=shown)
    assert found == [Revision("harm", "", "new")] and len(asked) == 1
    assert [m["content"] for m in asked[0][0]] == ["e", "f", "p", "a", PRINCIPLES[0].revision]


@pytest.mark.parametrize("written", [["", "new"], ["found", ""]])
def test_an_empty_turn_keeps_the_answer(written):
    turns = iter(written)
    (step,) = revise(prompts("p"), ["old"], PRINCIPLES[:1], lambda _: [next(turns)])
    assert step.revision == "old"


# --- runs


def test_every_step_is_logged_and_the_last_revision_is_trained_on(make_run, data):
    settings = {**SETTINGS, "task": None, "data": data}
    run = make_run("constitutional", model="zoo-critic", **settings, options=OPTIONS)
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train)
    lines = lines_of(run.record.folder)
    assert len(lines) == PROMPTS and {line["round"] for line in lines} == {0}
    for line, row, text in zip(lines, run.data.train, run.texts(batch), strict=True):
        assert line["prompt"] == row.row["prompt"] and line["draft"]
        assert [len(line["steps"]), set(line["steps"][0])] == [
            2, {"principle", "critique", "revision"},
        ]  # fmt: skip
        assert line["steps"][0]["critique"].startswith("The response")
        assert text == line["steps"][-1]["revision"]
    changed = sum(line["draft"] != line["steps"][-1]["revision"] for line in lines) / PROMPTS
    assert run.round_metrics.numbers == {
        "revisions/changed": pytest.approx(changed),
        "revisions/empty": 0,
    }
    # Every completion ends with EOS.
    ends = batch.tokens[torch.arange(len(batch.tokens)), batch.lengths - 1]
    assert set(ends.tolist()) == {run.codec.eos}


def test_all_revisions_may_be_trained_on(make_run, data):
    settings = {**SETTINGS, "task": None, "data": data}
    run = make_run(
        "constitutional", model="zoo-critic", **settings, options={**OPTIONS, "learn": "all"}
    )
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train)
    assert len(batch) == PROMPTS and len(batch.tokens) == 2 * PROMPTS


def test_the_loss_of_revisions_falls_and_the_base_does_not_change(make_run, data):
    run = make_run(
        "constitutional", model="zoo-critic", **{**SETTINGS, "task": None}, data=data,
        options={**OPTIONS, "iterations": 6},
    )  # fmt: skip
    run.hook.alignzoo_start(run=run)
    train(run)
    text = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in text]
    assert len(losses) == 18 and sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert run.ledger.feedback["judge_calls"] == 4 * PROMPTS  # two steps of two texts each
    assert run.ledger.flops["judge"] > 0 and run.ledger.flops["generation"] > 0


@pytest.mark.parametrize("stopped", ["while revising", "while training"])
def test_a_resumed_run_gives_the_same_result(tmp_path, monkeypatch, data, stopped):
    monkeypatch.setattr("alignzoo_judges.journal.ROWS_PER_PART", 4)
    changes = {"checkpoint_every": 1, "epochs": 2}
    straight = execute(recipe(tmp_path, data, "straight", **changes))
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "another"))
    again = recipe(tmp_path, data, "again", **changes)
    if stopped == "while training":
        interrupt(again, monkeypatch, step=2)
    else:
        calls = []

        def texts(self, dialogues, tokens, write=LocalJudge.texts):
            calls.append(len(dialogues))
            if len(calls) == 7:  # in the second of three parts
                raise KeyboardInterrupt
            return write(self, dialogues, tokens)

        with monkeypatch.context() as patch:
            patch.setattr(LocalJudge, "texts", texts)
            with pytest.raises(KeyboardInterrupt):
                execute(again)
    left = (tmp_path / "again" / "revisions.jsonl").read_text()
    resumed = execute(again, resume=True)
    assert_same_result(straight.folder, resumed.folder)
    kept = (tmp_path / "again" / "revisions.jsonl").read_text()
    assert kept.startswith(left) and lines_of(straight.folder) == lines_of(resumed.folder)
    ledgers = [ledger_of(run.folder) for run in (straight, resumed)]
    for ledger in ledgers:
        del ledger["seconds"], ledger["peak_memory_bytes"], ledger["saved"]
    assert ledgers[0] == ledgers[1]
    calls = [ledger["feedback"]["judge_calls"] for ledger in ledgers]
    assert calls[0] == calls[1] == 2 * 4 * PROMPTS


def test_prompts_may_be_plain_text(make_run, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text('{"prompt": "How do I bake rolls for the picnic?"}\n' * 3)
    run = make_run(
        "constitutional", model="zoo-critic", **{**SETTINGS, "task": None}, data=str(path),
        options=OPTIONS,
    )  # fmt: skip
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train)
    assert len(batch) == len(run.data.train) > 0


def test_other_principles_are_refused_on_resume(tmp_path, monkeypatch, data):
    file = tmp_path / "mine.yaml"
    file.write_text("principles: [{critique: c, revision: r, question: q}]")
    mine = recipe(tmp_path, data, "mine", options={**OPTIONS, "principles": str(file)})
    interrupt(mine, monkeypatch, step=1)
    file.write_text("principles: [{critique: c, revision: other, question: q}]")
    with pytest.raises(BadInput, match="principles differ"):
        execute(mine, resume=True)


def test_a_bad_principles_file_leaves_no_run(tmp_path, data):
    file = tmp_path / "mine.yaml"
    file.write_text("principles: []")
    with pytest.raises(BadInput, match="is empty"):
        execute(recipe(tmp_path, data, "mine", options={"principles": str(file)}))
    assert not (tmp_path / "mine").exists()


def test_the_base_cannot_criticise_without_an_adapter(tmp_path, data):
    with pytest.raises(BadInput, match="keeps no copy"):
        execute(recipe(tmp_path, data, "full", adapter="none"))

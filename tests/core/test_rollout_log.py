"""rollouts.jsonl: what is in it, how much, and that a resumed run writes no round twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignzoo import record
from alignzoo.discovery import hookimpl
from alignzoo.training import rollout_log
from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 6, "rollouts_every": 2}


def rows_in(run) -> list[dict]:
    path = run.record.folder / "rollouts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (1, 3), (4, 3), (4, 10), (5, 5), (3, 0)])
def test_a_round_is_logged_if_an_nth_step_falls_into_it(steps, every):
    for begun in range(0, 40, steps):
        numbers = range(begun + 1, begun + steps + 1)
        due = every > 0 and any(number % every == 1 % every for number in numbers)
        assert rollout_log.is_logged(begun, steps, every) == due


def test_every_second_step_has_its_completions(make_run):
    run = make_run("grpo", steps=3, options={"group_size": 3}, **SETTINGS)
    batches = []

    class Watch:
        @hookimpl(wrapper=True)
        def alignzoo_sample(self):
            batches.append((yield))
            return batches[-1]

    run.plugins.register(Watch())
    train(run)
    rows = rows_in(run)
    assert [(row["step"], row["round"]) for row in rows] == [(1, 0)] * 6 + [(3, 2)] * 6
    first = batches[0]
    assert [row["completion"] for row in rows[:6]] == run.texts(first)
    assert [row["prompt"] for row in rows[:6]] == [
        row["prompt"][-1]["content"] for row in first.answered()
    ]
    assert [row["prompt_index"] for row in rows[:6]] == [0, 0, 0, 1, 1, 1]
    for name, column in {"reward": "rewards", "advantage": "advantages", "length": None}.items():
        expected = first[column] if column else first.mask.sum(-1)
        assert [row[name] for row in rows[:6]] == pytest.approx(expected.tolist(), rel=1e-5)
    assert [row["rewards"]["task"] for row in rows[:6]] == first["reward/task"].tolist()
    assert [row["ended"] for row in rows[:6]] == first["ended"].tolist()
    assert not any("credit" in row for row in rows)


def test_credit_per_token_is_there_if_it_varies(make_run):
    run = make_run("grpo", options={"group_size": 2}, **{**SETTINGS, "max_new_tokens": 48})
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:1])
    per_token = torch.arange(batch.tokens.numel()).reshape(batch.tokens.shape).double()
    mask = batch.mask.clone()
    mask[0, 1] = False
    varied = replace(batch, mask=mask, columns={**batch.columns, "advantages": per_token})
    row = rollout_log.describe_completions(run, varied)[0]
    length = int(batch.lengths[0])
    assert [value for _, value in row["credit"]] == [
        None if i == 1 else float(i) for i in range(length)
    ]
    end = run.codec.tokenizer.eos_token if row["ended"] else ""
    assert "".join(piece for piece, _ in row["credit"]) == row["completion"] + end
    equal = torch.full_like(per_token, 1 / 3) * (1 + 1e-7 * per_token)  # but for rounding
    same = replace(batch, columns={**batch.columns, "advantages": equal})
    assert "credit" not in rollout_log.describe_completions(run, same)[0]
    assert row["advantage"] == pytest.approx(float(per_token[0][mask[0]].mean()), rel=1e-5)


def test_a_round_and_the_file_are_bounded(make_run, monkeypatch):
    run = make_run("grpo", steps=5, options={"group_size": 3}, **SETTINGS)
    notes = []
    monkeypatch.setattr(run.ui, "note", notes.append)
    monkeypatch.setattr(rollout_log, "MOST_COMPLETIONS", 4)
    monkeypatch.setattr(rollout_log, "MOST_CHARACTERS", 3)
    monkeypatch.setattr(rollout_log, "FULL_BYTES", 1)
    train(run)
    rows = rows_in(run)
    assert [row["step"] for row in rows] == [1] * 4
    assert all("more characters" in row["prompt"] for row in rows)
    assert sum("rollouts.jsonl" in note for note in notes) == 1


@pytest.mark.parametrize("settings", [{"rollouts_every": 0}, {"algorithm": "dpo"}])
def test_a_run_may_have_none(make_run, settings):
    settings = {"algorithm": "grpo", **SETTINGS, "steps": 1, **settings}
    run = make_run(settings.pop("algorithm"), **settings)
    train(run)
    assert not (run.record.folder / "rollouts.jsonl").exists()


def test_a_resumed_run_keeps_whole_rows_up_to_its_step(tmp_path: Path):
    facts = {"recipe": {"algorithm": "grpo"}, "fingerprints": {}, "results": {}}
    run = record.create_record(tmp_path / "run", facts)
    run.rollouts({"step": step, "completion": "x"} for step in (1, 1, 3, 5))
    path = run.folder / "rollouts.jsonl"
    with path.open("a") as file:
        file.write('{"step": 1, "comp')  # a crash
    run.rewind(3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 1, 3]

"""What a run comes to does not depend on the cache: cold, warm, or filled by a killed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resuming import assert_same_result, ledger_of, rows_of

from alignzoo import discovery
from alignzoo.session.session import execute, recipe_for
from alignzoo_judges.local import LocalJudge

SHARED = {"batch_size": 2, "max_new_tokens": 8, "eval_size": 0, "checkpoint_every": 2}
RUNS = {
    "a reward under a budget": (
        "grpo",
        {"task": "sums", "reward": ["judge"], "budget": "1.5e10", "options": {"group_size": 2}},
    ),
    "rlaif": ("rlaif", {"task": "constitution", "steps": 3}),
    "constitutional": (
        "constitutional",
        {"task": "constitution", "steps": 2, "options": {"revisions": 1}},
    ),
}  # fmt: skip


def bill(folder: Path) -> dict:
    """The ledger without what depends on the machine or the cache."""
    apart = ("seconds", "peak_memory_bytes", "saved")
    return {name: value for name, value in ledger_of(folder).items() if name not in apart}


def kill_at(monkeypatch, call: int, recipe) -> None:
    """Kill a run in the judge's call of that number, when half of it is answered and cached."""
    calls = 0

    def die(answers):
        nonlocal calls
        calls += 1
        half = answers[: len(answers) // 2] if calls == call else answers
        yield from half
        if calls == call:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for name in ("answers", "texts"):
            real = getattr(LocalJudge, name)
            patch.setattr(LocalJudge, name, lambda *a, real=real: die(list(real(*a))))
        with pytest.raises(KeyboardInterrupt):
            execute(recipe)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_with_any_cache(tmp_path: Path, monkeypatch, name):
    algorithm, settings = RUNS[name]
    monkeypatch.setattr("alignzoo_judges.journal.ROWS_PER_PART", 4)
    if settings["task"] == "constitution":  # no more prompts than these
        path = tmp_path / "prompts.jsonl"
        rows = discovery.load_plugin("tasks", "constitution")().rows("prompts", "train")[:6]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {**settings, "task": None, "data": str(path), "model": "zoo-critic"}

    def recipe(name: str, cache: str):
        monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / cache))
        return recipe_for(
            algorithm, {**SHARED, **settings, "output_dir": str(tmp_path), "name": name}
        )

    cold = execute(recipe("cold", "first")).folder
    warm = execute(recipe("warm", "first")).folder
    kill_at(monkeypatch, 3 if algorithm == "grpo" else 2, recipe("killed", "second"))
    resumed = execute(recipe("killed", "second"), resume=True).folder
    for other in (warm, resumed):
        assert_same_result(cold, other)
        assert rows_of(cold) == rows_of(other)
        assert bill(cold) == bill(other)
    assert len(rows_of(cold)) > 1 and ledger_of(cold)["flops"]["judge"] > 0
    saved = ledger_of(warm)["saved"]
    assert saved["judge_calls"] == ledger_of(warm)["feedback"]["judge_calls"] > 0
    assert saved["flops"] == ledger_of(warm)["flops"]["judge"]
    assert saved["tokens"] == ledger_of(warm)["tokens"]["judge"]
    assert 0 < ledger_of(resumed)["saved"]["flops"] < saved["flops"]

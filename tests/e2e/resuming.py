"""Stopping a run and going on with it: what the tests of every algorithm ask of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignzoo.discovery import hookimpl
from alignzoo.recipe import Recipe
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train


class Interrupts:
    """Ctrl-C after some step."""

    def __init__(self, step: int):
        self.step = step

    @hookimpl
    def alignzoo_step(self, run, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt


def interrupt(recipe: Recipe, monkeypatch, step: int, *, resume: bool = False) -> None:
    """Start a run, which is interrupted after this step."""

    def interrupted(run):
        run.plugins.register(Interrupts(step))
        train(run)

    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.session.session.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe, resume=resume)


def straight_and_broken(
    recipe: Callable[[str], Recipe], monkeypatch, step: int
) -> tuple[Path, Path]:
    """The folders of a run, and of the same one that was interrupted after this step."""
    straight = execute(recipe("straight")).folder
    interrupt(recipe("broken"), monkeypatch, step)
    return straight, straight.with_name("broken")


def rounds_sampled(monkeypatch) -> list[int]:
    """The rounds that runs sample from now on, as they do."""
    rounds: list[int] = []

    class Counts:
        @hookimpl(wrapper=True)
        def alignzoo_sample(self, run, rows):
            rounds.append(run.round)
            return (yield)

    def counted(run):
        run.plugins.register(Counts())
        train(run)

    monkeypatch.setattr("alignzoo.session.session.train", counted)
    return rounds


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rollouts_of(folder: Path) -> str:
    path = folder / "rollouts.jsonl"
    return path.read_text() if path.exists() else ""


def result_of(folder: Path) -> dict[str, Tensor]:
    kind = "adapter/adapter_model" if (folder / "adapter").is_dir() else "model/model"
    return load_file(folder / f"{kind}.safetensors")


def ledger_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["ledger"]


def state_of(folder: Path) -> dict[str, Any]:
    """The state of the newest checkpoint."""
    checkpoint = max((folder / "checkpoints").iterdir())
    return json.loads((checkpoint / "state.json").read_text())


def assert_same_result(one: Path, other: Path) -> None:
    ours, theirs = result_of(one), result_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: what was logged, what was learnt and, but for the time, what was spent."""
    assert rows_of(one) == rows_of(other)
    assert rollouts_of(one) == rollouts_of(other)
    assert_same_result(one, other)
    for name in ("flops", "tokens", "feedback"):
        assert ledger_of(one)[name] == ledger_of(other)[name]


def assert_taken_up_in_the_middle(
    algorithm: str, settings: dict[str, Any], out: Path, monkeypatch
) -> None:
    """Rounds of three steps, stopped in the middle of the second one, of which a checkpoint has a
    step."""
    settings = {
        **settings,
        "steps": 6,
        "learning_rate": 0.003,
        "lora_dropout": 0.1,
        "eval_size": 2,
        "checkpoint_every": 4,
        "rollouts_every": 1,
        "output_dir": str(out),
    }

    def recipe(name: str) -> Recipe:
        return recipe_for(algorithm, {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=5)
    assert state_of(broken)["current"]["done"] == 1
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)

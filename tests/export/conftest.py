"""Finished runs on zoo-tiny, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignzoo.cli.options import run_class
from alignzoo.session import execute, recipe_for
from alignzoo_export.command import ExportCommand

QUICK = {"steps": 1, "batch_size": 4, "eval_size": 4, "max_new_tokens": 8, "learning_rate": 1e-3}


def train(folder: Path, name: str, **settings: Any) -> Path:
    recipe = recipe_for("dpo", {"output_dir": str(folder), "name": name, **QUICK, **settings})
    return execute(recipe).folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`runs("lora", adapter="lora") -> folder` of a run that is trained once."""
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}

    def run(name: str, **settings: Any) -> Path:
        if name not in made:
            made[name] = train(folder, name, **settings)
        return made[name]

    return run


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`export(run, out, "--merge") -> what it printed`."""

    def call(run: Path, out: Path, *flags: str) -> str:
        words = [str(run), str(out), "--items", "2", *flags]
        run_class(ExportCommand, words, "alignzoo export", ExportCommand.positional)
        return capsys.readouterr().out

    return call

"""Fakes for what the command line stands on, so that its tests load no model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ALGORITHM = '''
import os
from dataclasses import dataclass, field
from typing import Annotated, Literal
from annotated_types import Gt
from alignzoo import hookimpl

os.write(1, b"noise while importing\\n")

@dataclass(eq=False)
class Toy:
    """A toy [of mine], for tests."""

    beta: Annotated[float, "strength [of the pull]", Gt(0)] = 0.1
    kind: Annotated[Literal["sigmoid", "hinge"], "shape of the loss"] = "sigmoid"
    center: Annotated[bool, "center the scores"] = True
    layers: Annotated[list[int], "layers to use"] = field(default_factory=list)
    cap: Annotated[float | None, "largest margin"] = None

    data = None
    defaults = {"learning_rate": 2e-4, "batch_size": 4}

    @hookimpl
    def alignzoo_loss(self, run, batch): ...
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of an algorithm in a plain file, with the working directory beside it."""
    (tmp_path / "toy.py").write_text(ALGORITHM)
    monkeypatch.chdir(tmp_path)
    return "./toy.py"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts a function in the place of the core's `execute`."""

    def use(execute: Callable[..., Any]) -> None:
        monkeypatch.setitem(sys.modules, "alignzoo.session", SimpleNamespace(execute=execute))

    return use


@pytest.fixture
def alignzoo() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command in a process of its own; or `code`, in a process with the same surroundings."""
    root = str(Path(__file__).parents[2])

    def run(
        *words: str, code: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *(["-c", code] if code else ["-m", "alignzoo", *words])],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([root, f"{root}/plugins", f"{root}/benchmarks"]),
                "COLUMNS": "100",
                **variables,
            },
        )

    return run

"""Laws on whole runs, with a real model: resume, rates, and that the loss falls."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from alignzoo.algorithm import Traits
from alignzoo.data import Prompts
from alignzoo.policy import keep_bases
from alignzoo.session import execute, recipe_for
from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.stage import TEXTS, Stage
from alignzoo.ui import Silent, Update

STEPS = 4
LEAST = 1e-17  # of learning rates
SHORT = {
    "steps": STEPS, "batch_size": 4, "checkpoint_every": 1, "learning_rate": 1e-3,
}  # fmt: skip


class Interrupting(Silent):
    """A UI that presses Ctrl-C after some steps."""

    def __init__(self, after: int):
        self.after = after

    @contextmanager
    def progress(self, total: int | None, metric: str | None) -> Iterator[Update]:
        """Raise `KeyboardInterrupt` when the step has been logged."""

        def update(step: int, fraction: float, metrics: Mapping[str, float]) -> None:
            if step == self.after:
                raise KeyboardInterrupt

        yield update


def run_once(
    stage: Stage, folder: Path, name: str, *, resume: bool = False, ui: Any = None, **changes: Any
) -> Path:
    """Run an algorithm with a real model, and return the folder of the run."""
    keep_bases()
    settings = {**stage.recipe_settings(folder), **SHORT, **changes, "name": name}
    if "max_new_tokens" in settings:
        settings["max_new_tokens"] = 8
    if stage.draws:  # the score of so few tokens differs only in this task
        settings |= {"task": TEXTS, "data": None}
    recipe = recipe_for(stage.name, settings)
    return execute(recipe, resume=resume, allow_code=True, ui=ui or Silent()).folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return what a run has logged in each step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a run has saved."""
    found = sorted(folder.glob("adapter/*.safetensors")) + sorted(
        folder.glob("model/*.safetensors")
    )
    return {f"{path.name} {name}": w for path in found for name, w in load_file(path).items()}


def same_weights(one: Path, other: Path) -> bool:
    """Return whether two runs have saved the same weights, bit for bit, and any at all."""
    ours, theirs = weights_of(one), weights_of(other)
    if not ours or ours.keys() != theirs.keys():
        return False
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@law(
    "algorithms",
    "resume",
    says="a run that is stopped after a step and resumed ends as the one that was not, bit for bit",
    cause="a number kept on `self` from step to step: keep it in `run.state_of(self)`; or random "
    "numbers that no seed of the run gives",
    hook="alignzoo_step",
)
def check_resume(stage: Stage) -> None:
    """Compare a run with one that is interrupted twice, from other global generators."""
    compare_resumed(stage)


def compare_resumed(stage: Stage) -> None:
    """Raise `Broken` if a run that is interrupted twice ends otherwise than a straight one."""
    with tempfile.TemporaryDirectory(prefix="alignzoo-check-") as made:
        folder = Path(made)
        straight = run_once(stage, folder, "straight")
        broken = folder / "broken"
        for stop in (1, STEPS - 1, None):
            random.seed(stop)
            try:
                run_once(
                    stage,
                    folder,
                    "broken",
                    resume=broken.is_dir(),
                    ui=Interrupting(stop) if stop else None,
                )
            except KeyboardInterrupt:
                continue
        for one, other in zip(rows_of(straight), rows_of(broken), strict=True):
            for name in one:
                if one[name] != other.get(name):
                    raise Broken(
                        f"metric {name!r} of step {one['step']} is {one[name]}, and "
                        f"{other.get(name)} after a resume"
                    )
        if not same_weights(straight, broken):
            raise Broken("the weights of a resumed run differ")


@law(
    "algorithms",
    "rate 0",
    says="a learning rate of (almost) 0 changes no weight",
    cause="a plugin that writes to weights itself",
    hook="alignzoo_step",
)
def check_rate(stage: Stage) -> None:
    """Run two steps at a rate below what float32 can add, and compare the weights."""
    with tempfile.TemporaryDirectory(prefix="alignzoo-check-") as made:
        folder = Path(made)
        # With LoRA, B starts at 0, where the smallest step is seen.
        first, second = (
            weights_of(run_once(stage, folder, name, steps=steps, learning_rate=LEAST))
            for name, steps in (("one", 1), ("two", 2))
        )
        largest = max(
            (float((first[n].float() - second[n].float()).abs().max()) for n in first), default=0.0
        )
        if largest > 100 * LEAST:
            raise Broken(f"a weight changes by {largest:.3g} at a learning rate of {LEAST}")


@law(
    "algorithms",
    "learns",
    says="the loss of the same few rows falls",
    cause="a gradient that does not belong to the loss, or a scale that is far off",
    hook="alignzoo_loss",
)
def check_learns(stage: Stage) -> None:
    """Train on a handful of rows, over and over, and compare the first loss with the last."""
    if stage.run.algorithm.data is Prompts:
        raise NotApplicable("the rows of each step are new completions")
    if Traits.of(stage.run.algorithm).rounds.rows is not None:
        raise NotApplicable("a round has rows of its own")
    with tempfile.TemporaryDirectory(prefix="alignzoo-check-") as made:
        changes: dict[str, Any] = {
            "steps": 12,
            "batch_size": 24,
            "learning_rate": 3e-3,
            "checkpoint_every": 0,
        }
        rows = rows_of(run_once(stage, Path(made), "run", **changes))
        if not rows[-1]["loss"] < rows[0]["loss"]:
            raise Broken(f"the loss goes from {rows[0]['loss']:.4g} to {rows[-1]['loss']:.4g}")

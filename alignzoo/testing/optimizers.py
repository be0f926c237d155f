"""Laws for optimizers: a run is resumed exactly, its rate is the only step, and it learns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo.testing.laws import law
from alignzoo.testing.runs import check_learns, check_rate, compare_resumed, rows_of, run_once
from alignzoo.testing.stage import Stage
from alignzoo.testing.subject import Subject

TRAINED_BY = "sft"


@dataclass
class OptimizerSubject(Subject):
    """An optimizer, in short runs of one algorithm."""

    kind = "optimizers"

    @property
    def stage(self) -> Stage:
        """Return the algorithm with the optimizer."""
        return Stage(TRAINED_BY, settings={"optimizer": self.text})

    @cached_property
    def finished(self) -> Path:
        """Return the folder of a run."""
        return run_once(self.stage, self.folder, "once")

    def start(self) -> None:
        """Run the algorithm."""
        _ = self.finished

    def observe(self) -> list[dict[str, Any]]:
        """Return what the run logs."""
        return rows_of(self.finished)


def optimizer_law(name: str, *, says: str, cause: str) -> Any:
    """Register the decorated function as the check of a law for optimizers."""
    return law("optimizers", name, says=says, cause=cause, hook="alignzoo_optimizer")


@optimizer_law(
    "resume",
    says="a run that is stopped after a step and resumed ends as the one that was not, bit for bit",
    cause="a number on the optimizer itself: keep it in `state[parameter]` or in a group",
)
def check_optimizer_resume(subject: OptimizerSubject) -> None:
    """Compare a run with one that is interrupted twice."""
    compare_resumed(subject.stage)


@optimizer_law(
    "rate 0",
    says="a learning rate of (almost) 0 changes no weight",
    cause='a step that does not read `group["lr"]`, which the loop sets before each step',
)
def check_optimizer_rate(subject: OptimizerSubject) -> None:
    """Take steps at a rate below what float32 can add, and compare the weights."""
    check_rate(subject.stage)


@optimizer_law(
    "learns",
    says="the loss of the same few rows falls",
    cause="a sign, a factor that leaves nothing of the rate, or parameters without a step",
)
def check_optimizer_learns(subject: OptimizerSubject) -> None:
    """Train on a handful of rows, over and over, and compare the first loss with the last."""
    check_learns(subject.stage)

"""Laws for add-ons: runs end as without them, can be resumed, and take hardly longer."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo.discovery import hook_methods
from alignzoo.errors import BadInput
from alignzoo.run import Run
from alignzoo.testing.laws import Broken, law
from alignzoo.testing.runs import compare_resumed, rows_of, run_once, same_weights
from alignzoo.testing.stage import Stage
from alignzoo.testing.subject import Subject
from alignzoo.training.loop import begin_round, train_step
from alignzoo.training.optimizer import make_optimizer
from alignzoo.ui import Silent

ALGORITHMS = ("dpo", "grpo")  # one that reads its completions, one that draws them
EVALUATED = 2  # prompts, so that hooks of evaluations are called as well
TIMED_STEPS = 12
# Of the time of a step of zoo-tiny, 50 ms. Two hooks that keep a number in the state of the run
# take 0.15%, a moving average of the weights 0.4%.
DEAREST = 0.01


class Noting(Silent):
    """A UI that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)


@dataclass
class AddonSubject(Subject):
    """An add-on, in short runs of two algorithms."""

    kind = "addons"

    def stage(self, algorithm: str, *, alone: bool = False) -> Stage:
        """Return an algorithm with the add-on, or without any."""
        addons = [] if alone else [self.text]
        return Stage(algorithm, settings={"addons": addons, "eval_size": EVALUATED})

    @cached_property
    def ui(self) -> Noting:
        """Return what the runs with the add-on have said."""
        return Noting()

    @cached_property
    def runs(self) -> dict[str, tuple[Path, Path]]:
        """Run each algorithm without the add-on and with it, and return the folders.

        An algorithm that the add-on refuses is left out. Raise `BadInput` if it refuses all.
        """
        found: dict[str, tuple[Path, Path]] = {}
        refused: BadInput | None = None
        for name in ALGORITHMS:
            try:
                folder = run_once(self.stage(name), self.folder, name, ui=self.ui)
            except BadInput as error:
                refused = error
                continue
            alone = run_once(self.stage(name, alone=True), self.folder, f"{name}-alone")
            found[name] = alone, folder
        if refused is not None and not found:
            raise refused
        return found

    def start(self) -> None:
        """Run each algorithm."""
        _ = self.runs

    def observe(self) -> list[dict[str, Any]]:
        """Return what the runs log."""
        return [row for _, folder in self.runs.values() for row in rows_of(folder)]


def results_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of a run's evaluations."""
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))["results"]
    return {phase: each for phase, each in found.items() if isinstance(each, dict)}


def addon_law(name: str, *, says: str, cause: str, hook: str = "alignzoo_step") -> Any:
    """Register the decorated function as the check of a law for add-ons."""
    return law("addons", name, says=says, cause=cause, hook=hook)


@addon_law(
    "resume",
    says="a run that is stopped after a step and resumed ends as the one that was not, bit for bit",
    cause="a number kept on `self` from step to step: keep it in `run.state_of(self)`",
)
def check_addon_resume(subject: AddonSubject) -> None:
    """Compare a run of each algorithm with one that is interrupted twice."""
    for algorithm in subject.runs:
        compare_resumed(subject.stage(algorithm))


@addon_law(
    "core metrics",
    says="the core's metrics, scores and weights are the same as without the add-on",
    cause="a metric of a name that is taken, a draw from a global generator, or an add-on that is "
    "meant to change the training: state the exception",
)
def check_core_metrics(subject: AddonSubject) -> None:
    """Compare a run of each algorithm with one without the add-on."""
    for algorithm, (alone, folder) in subject.runs.items():
        for one, other in zip(rows_of(alone), rows_of(folder), strict=True):
            require_kept(one, other, f"in step {one['step']} of {algorithm}")
        for phase, found in results_of(alone).items():
            require_kept(found, results_of(folder)[phase], f"{phase} {algorithm}")
        if not same_weights(alone, folder):
            raise Broken(f"the weights of {algorithm} differ")


def require_kept(one: Mapping[str, Any], other: Mapping[str, Any], when: str) -> None:
    """Raise `Broken` if a number of a run is another one with the add-on."""
    for name in one:
        if one[name] != other.get(name):
            raise Broken(f"{name!r} {when} is {one[name]}, and {other.get(name)} with the add-on")


@addon_law(
    "added metrics",
    says="each metric and score that the add-on adds is a finite number",
    cause="a mean of nothing, a logarithm of 0, or a metric that is present in only some steps",
)
def check_added_metrics(subject: AddonSubject) -> None:
    """Look at what is logged beside the core's own metrics."""
    for algorithm, (alone, folder) in subject.runs.items():
        known = rows_of(alone)[0].keys()
        for row in rows_of(folder):
            for name in row.keys() - known:
                if not isinstance(row[name], int | float) or not math.isfinite(row[name]):
                    raise Broken(f"{name!r} is {row[name]!r} in step {row['step']} of {algorithm}")
    unusable = [note for note in subject.ui.notes if "not finite" in note]
    if unusable:
        raise Broken(unusable[0])


@addon_law(
    "overhead",
    says=f"the hooks take less than {DEAREST:.0%} of the time of a step of zoo-tiny",
    cause="a file that is opened, a tensor that is copied from the GPU, or a forward pass, in "
    "every step: do it every few steps, or state the exception",
)
def check_overhead(subject: AddonSubject) -> None:
    """Time the hooks of the add-on in a few steps, and compare the fastest with the step."""
    algorithm = next(iter(subject.runs))
    run = subject.prepare_run(algorithm, addons=[subject.text], name="timed")
    clock = time_hooks(run, subject.cls)
    optimizer = make_optimizer(run.model.named_parameters(), run.learning_rate, 0.0)
    shares = []
    for _ in range(TIMED_STEPS):
        clock.seconds, began = 0.0, time.perf_counter()
        batch = begin_round(run, optimizer).batch
        metrics = train_step(run, optimizer, batch, first=True)
        run.hook.alignzoo_step(run=run, step=run.step, metrics=metrics)
        run.hook.alignzoo_round_end(run=run, index=run.round)
        run.schedule.round += 1
        whole = time.perf_counter() - began
        shares.append(clock.seconds / (whole - clock.seconds))
    if min(shares) > DEAREST:
        raise Broken(f"the hooks take {min(shares):.1%} of the time of a step, or more")


@dataclass
class Clock:
    """Seconds that were spent in hooks."""

    seconds: float = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook whose own time is added; that of what a wrapper wraps is not."""

        def call(*arguments: Any) -> Any:
            with self:
                return function(*arguments)

        def wrap(*arguments: Any) -> Iterator[Any]:
            hook = function(*arguments)
            with self:
                next(hook)
            result = yield
            with self:
                try:
                    hook.send(result)
                except StopIteration as end:
                    return end.value
            raise Broken("a wrapper yields once, and this one yields again")

        return wrap if inspect.isgeneratorfunction(function) else call

    def __enter__(self) -> None:
        self.seconds -= time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()


def time_hooks(run: Run, cls: type) -> Clock:
    """Time each hook of the plugins of a class from now on."""
    clock = Clock()
    for name in hook_methods(cls):
        for each in getattr(run.hook, name).get_hookimpls():
            if isinstance(each.plugin, cls):
                each.function = clock.timed(each.function)
    return clock

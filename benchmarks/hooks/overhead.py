"""Measure what three add-ons add to a step: the calls of hooks, and the checks of what they give.

    python benchmarks/hooks/overhead.py

No model is computed. A fake run calls the hooks of one on-policy step (a batch, its rewards and
advantages, one micro-batch's loss, the step, the end of the round) with the same small tensors
each time, without add-ons and with three of them: one wraps the reward, one the loss, one sees the
step. They compute nothing, so that the difference is the cost of hooks. It is CPU time, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Generator
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

import pluggy
import torch
from torch import Tensor

from alignzoo import Batch, Example, Loss, collate, hookimpl, hooks
from alignzoo.reserved import Names

STEPS, REPEATS = 1000, 15
RESULT = Path(__file__).parents[1] / "results" / "hooks" / "overhead.json"
ROUND = collate([Example([1, 2, 3], [[4] * 16, [5] * 12]) for _ in range(4)])
SCORES = torch.arange(8.0)
WEIGHT = torch.ones((), requires_grad=True)


class Algorithm:
    """A round of eight completions, and a loss of one product"""

    @hookimpl
    def alignzoo_sample(self) -> Batch:
        return ROUND

    @hookimpl
    def alignzoo_advantage(self, batch: Batch) -> Tensor:
        return batch["rewards"]

    @hookimpl
    def alignzoo_loss(self, batch: Batch) -> Loss:
        count = torch.tensor(len(batch.tokens))
        return Loss(3 * WEIGHT, count, {"entropy": (WEIGHT.detach(), count)})


class Reward:
    """The same scores each time"""

    @hookimpl
    def alignzoo_reward(self) -> Tensor:
        return SCORES


class SeeReward:
    """Look at the rewards"""

    @hookimpl(wrapper=True)
    def alignzoo_reward(self) -> Generator[None, list[Tensor], list[Tensor]]:
        return (yield)


class Regularise:
    """Make a loss of another, with one more metric"""

    @hookimpl(wrapper=True)
    def alignzoo_loss(self) -> Generator[None, Loss, Loss]:
        loss = yield
        metrics = {**loss.metrics, "regularise/term": (loss.count, loss.count)}
        return Loss(loss.sum, loss.count, metrics)


class Track:
    """Log a number of each step"""

    @hookimpl
    def alignzoo_step(self, step: int, metrics: dict[str, float]) -> None:
        metrics["track/double"] = 2.0 * metrics["loss"]


ADDONS = {"see": SeeReward(), "regularise": Regularise(), "track": Track()}


def fake_run() -> Any:
    """Return what the checks read of a run."""
    config = SimpleNamespace(vocab_size=512)
    network = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    return SimpleNamespace(names=Names(), step=0, model=SimpleNamespace(model=network))


def call_hooks(hook: Any, run: Any) -> None:
    """Call the hooks of one step."""
    batch = hook.alignzoo_sample(run=run, rows=[])
    batch.columns["rewards"] = hook.alignzoo_reward(run=run, batch=batch)[0]
    hook.alignzoo_advantage(run=run, batch=batch)
    hook.alignzoo_loss(run=run, batch=batch)
    metrics = {f"metric {n}": float(n) for n in range(20)} | {"loss": 1.0}
    hook.alignzoo_step(run=run, step=1, metrics=metrics)
    hook.alignzoo_round_end(run=run, index=0)


def time_steps(hook: Any) -> float:
    """Return the CPU microseconds of a step, the mean over `STEPS` of them."""
    run = fake_run()
    started = process_time()
    for _ in range(STEPS):
        call_hooks(hook, run)
    return (process_time() - started) / STEPS * 1e6


def make_hook(addons: dict[str, Any]) -> Any:
    """Return the hooks of the algorithm and its reward with these add-ons."""
    return hooks.make_manager({"reward": Reward(), "algorithm": Algorithm(), **addons}).hook


def without_checks(make: Callable[[], Any]) -> Any:
    """Return hooks whose results nobody checks, as pluggy calls them."""
    guard = hooks.guard
    hooks.guard = lambda impl, hook: None
    try:
        return make()
    finally:
        hooks.guard = guard


def main() -> None:
    """Measure, print and write the result: of each kind the fastest of `REPEATS`."""
    torch.set_num_threads(1)
    kinds = {
        "none": make_hook({}),
        "three": make_hook(ADDONS),
        "none_unchecked": without_checks(lambda: make_hook({})),
        "three_unchecked": without_checks(lambda: make_hook(ADDONS)),
    }
    fastest = dict.fromkeys(kinds, float("inf"))
    for _ in range(REPEATS):  # in turn, so that what else the machine does meets all of them
        for name, hook in kinds.items():
            fastest[name] = min(fastest[name], time_steps(hook))
    found = {
        "microseconds_per_step": {name: round(value, 1) for name, value in fastest.items()},
        "added_by_three_addons": round(fastest["three"] - fastest["none"], 1),
        "added_unchecked": round(fastest["three_unchecked"] - fastest["none_unchecked"], 1),
        "steps": STEPS,
        "repeats": REPEATS,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pluggy": pluggy.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(found, indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

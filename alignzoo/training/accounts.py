"""What the loop writes down of its steps: costs besides those of forward passes, and metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from alignzoo.data import FEEDBACK_KINDS, count_feedback
from alignzoo.errors import BadInput
from alignzoo.ledger import Cost, peak_memory
from alignzoo.run import Run

ROW_STATE = "the rows"  # the name of their state
MOST_OVER = 2.0  # times the budget that a run of one step may take


def charge_time(run: Run, started: float) -> float:
    """Charge the seconds since `started` and the peak memory to the ledger; return the time now."""
    now = time.perf_counter()
    run.ledger.seconds += now - started
    run.ledger.see_memory(peak_memory(run.device))
    return now


@contextmanager
def within_budget(run: Run) -> Iterator[None]:
    """Raise `BadInput` in the block if the first step of a run takes over twice its budget.

    A run ends after the step that reaches its budget, so a few percent over is usual.
    """
    recipe = run.recipe
    if recipe.budget is None or run.step:
        yield
        return
    problem = f"option --budget: one step takes over {MOST_OVER:g} times {recipe.budget}"
    hint = "choose a larger --budget, a smaller --batch-size, or fewer rows"
    with run.ledger.limited(
        BadInput(problem, hint=hint),
        flops=MOST_OVER * (recipe.budget_flops or math.inf),
        feedback=MOST_OVER * (recipe.budget_feedback or math.inf),
    ):
        yield


def charge_feedback(run: Run, rows: Sequence[int]) -> None:
    """Count the feedback in the rows of the round that has ended, each row once in a run."""
    kind = FEEDBACK_KINDS.get(run.algorithm.data.name)
    if kind is not None:
        seen = rows_seen(run)
        new = [i for i in dict.fromkeys(rows) if not seen[i]]
        seen[new] = True
        run.ledger.use_feedback(kind, sum(count_feedback(run.data.train[i]) for i in new))


def rows_seen(run: Run) -> Tensor:
    """Return which training rows the earlier rounds had, a part of every checkpoint."""
    state = run.states.of(ROW_STATE)
    if "seen" not in state:
        seen = torch.zeros(len(run.data.train), dtype=torch.bool)
        for earlier in range(run.round - 1):  # an older checkpoint had the default order
            seen[run.order.batch(earlier)] = True
        state["seen"] = seen
    return state["seen"]


def charge_other_processes(run: Run, purpose: str, flops: float) -> None:
    """Charge the FLOPs of the other processes: a budget is that of all of them together."""
    if run.world.size > 1:
        others = sum(run.world.gather_each(flops)) - flops
        run.ledger.charge(purpose, Cost(flops=others))


def log_step(run: Run, metrics: dict[str, float]) -> None:
    """Write one row of metrics.jsonl, and send it to the trackers."""
    if run.world.is_main:
        run.record.metrics({"step": run.step, **metrics, "flops": run.ledger.total_flops})
    run.accelerator.log(metrics, step=run.step)

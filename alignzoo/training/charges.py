"""What the loop charges to the ledger besides forward passes: time, feedback, other processes."""

from __future__ import annotations

import time

from alignzoo.data import FEEDBACK_KINDS, count_feedback
from alignzoo.ledger import Cost, peak_memory
from alignzoo.run import Run


def charge_time(run: Run, started: float) -> float:
    """Charge the seconds since `started` and the peak memory to the ledger; return the time now."""
    now = time.perf_counter()
    run.ledger.seconds += now - started
    run.ledger.see_memory(peak_memory(run.device))
    return now


def charge_feedback(run: Run) -> None:
    """Count the feedback in the rows of the last round, each row once in a run."""
    kind = FEEDBACK_KINDS.get(run.algorithm.data.name)
    if kind is not None:
        new = (run.data.train[i] for i in run.order.unseen(run.round - 1))
        run.ledger.use_feedback(kind, sum(map(count_feedback, new)))


def charge_other_processes(run: Run, purpose: str, flops: float) -> None:
    """Charge the FLOPs of the other processes: a budget is that of all of them together."""
    if run.world.size > 1:
        others = sum(run.world.gather_each(flops)) - flops
        run.ledger.charge(purpose, Cost(flops=others))

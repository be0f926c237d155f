"""Several processes of a run, as threads of this one."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch
from torch import Tensor

from alignzoo.errors import RunFailed
from alignzoo.loss import Totals
from alignzoo.run.world import Value, World
from alignzoo.testing.stage import Measured, Stage

PATIENCE = 30.0  # seconds that a process waits for the others


class Meeting:
    """Where threads exchange one value each."""

    def __init__(self, size: int):
        self.size = size
        self._barrier = Barrier(size)
        self._values: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """Return the values of all threads, in the order of their ranks."""
        self._values[rank] = value
        self._wait()
        values = list(self._values)
        self._wait()
        return values

    def _wait(self) -> None:
        try:
            self._barrier.wait(PATIENCE)
        except BrokenBarrierError:
            raise RunFailed(
                "one process waits for another",
                hint="all processes make the same collective calls (run.gather, run.log_mean, ...) "
                "in the same order",
            ) from None

    def abort(self) -> None:
        """Let no thread wait for one that has failed."""
        self._barrier.abort()


class ThreadWorld(World):
    """The processes of a run as threads."""

    def __init__(self, world: World, rank: int, meeting: Meeting):
        super().__init__(world.accelerator)
        object.__setattr__(self, "_rank", rank)
        object.__setattr__(self, "_meeting", meeting)

    @property
    def rank(self) -> int:
        """Return the number of this thread, from 0."""
        return self._rank  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """Return how many threads there are."""
        return self._meeting.size  # type: ignore[attr-defined]

    @property
    def is_main(self) -> bool:
        """Return whether this thread is the main process."""
        return self.rank == 0

    def gather_each(self, value: Value) -> list[Value]:
        """Return one value of each thread, in the order of their ranks."""
        return self._meeting.exchange(self.rank, value)  # type: ignore[attr-defined]

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the threads, in its shape."""
        return torch.stack(self.gather_each(x)).sum(0)

    def wait(self) -> None:
        """Wait until every thread has reached this call."""
        self.gather_each(None)


def measure_in_processes(stage: Stage, size: int) -> Measured:
    """Return the loss of a stage's rows and its gradient, computed by several processes.

    Each has its part of the rows, samples its own batch and computes its loss.
    """
    meeting = Meeting(size)
    stages = [stage.vary() for _ in range(size)]
    for rank, each in enumerate(stages):
        each.run.world = each.run.round_metrics.world = ThreadWorld(each.run.world, rank, meeting)

    def work(each: Stage) -> Measured:
        try:
            batch = each.sample(each.run.shard(each.rows))
            return each.measure([batch] if len(batch) else [])
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        parts = list(pool.map(work, stages))
    totals = Totals()
    totals.merge([part.totals for part in parts])
    gradient: dict[Any, float] = defaultdict(float)
    for part in parts:
        for place, value in part.gradient.items():
            gradient[place] += value
    return Measured(totals, dict(gradient))

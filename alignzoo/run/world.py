"""The processes of a run: sharding, gathering and sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from alignzoo.policy.sharding import is_split

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """All processes of a run. Every `gather_*` is a collective call: each process makes it."""

    accelerator: Accelerator

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        return self.accelerator.process_index

    @property
    def size(self) -> int:
        """Return how many processes there are."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Return whether this process is the main one, which writes files and messages."""
        return self.accelerator.is_main_process

    def shard(self, rows: list[Value]) -> list[Value]:
        """Return this process's part of what belongs to the rows of a round."""
        return rows[self.rank :: self.size]

    def gather(self, values: list[Value]) -> list[Value]:
        """Return the parts of all processes in the order of the rows: the inverse of `shard`."""
        shards = self.gather_each(values)
        return [part[i] for i in range(len(shards[0])) for part in shards if i < len(part)]

    def gather_each(self, value: Value) -> list[Value]:
        """Return one value of each process, in the order of their ranks."""
        return gather_object([value])

    def gather_values(self, x: Tensor) -> Tensor:
        """Return the values of all processes as one vector, `[n] -> [n of all]`, by rank."""
        return torch.tensor([v for part in self.gather_each(x.tolist()) for v in part])

    def gather_masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the values of `x [N, T]` in `mask [N, T]` of all processes as one vector."""
        return self.gather_values(x[mask])

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, in its shape."""
        return self.accelerator.reduce(x, "sum")

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        self.accelerator.wait_for_everyone()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, in place and without a copy.

        A parameter may have a gradient in only some processes: a missing one counts as 0. The
        backward pass has summed that of a weight that is split over them.
        """
        if self.size == 1:
            return
        pending: list[Any] = []
        for parameter in (p for p in parameters if not is_split(p)):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            pending.append(torch.distributed.all_reduce(parameter.grad, async_op=True))
        for work in pending:
            work.wait()

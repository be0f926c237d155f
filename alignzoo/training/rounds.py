"""A round in progress: its mini-batches, and where it stands between two of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from alignzoo.batch import Batch
from alignzoo.run import Run


@dataclass
class Round:
    """A round in progress, which a checkpoint can save and resume in the middle.

    Args:
        batch: what the round learns from; of several processes, each has a part of it.
        rows: indices of its rows in the training data, of all processes.
        began: number of optimizer steps of the run before the round.
        done: number of mini-batches done, over all passes.
    """

    batch: Batch
    rows: list[int]
    began: int
    done: int = 0

    def remaining(self, run: Run) -> Iterator[Batch]:
        """Yield the mini-batches not learned from yet, shuffled again for each pass.

        Each is an optimizer step of `batch_size` rows of the round; one may be empty.
        """
        steps = self.steps_per_pass(run)
        for index in range(self.done, steps * run.schedule.rounds.iterations):
            iteration, place = divmod(index, steps)
            if index > 0:
                # The first mini-batch continues with the generators as sampling left them.
                torch.manual_seed(run.seed_for("update", run.step, run.world.rank))
            if steps == 1:
                yield self.batch
                continue
            seed = run.seed_for("minibatches", run.round, iteration)
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self.batch), generator=generator).tolist()
            yield self.batch.select(order[self.start(run, place) : self.start(run, place + 1)])

    def has_more(self, run: Run) -> bool:
        """Return whether mini-batches are left."""
        return self.done < self.steps_per_pass(run) * run.schedule.rounds.iterations

    def steps_per_pass(self, run: Run) -> int:
        """Return the number of steps of one pass.

        It depends on the rows of the round alone, so that all processes agree on it even if they
        have kept different numbers of them.
        """
        return math.ceil(run.schedule.rows_in(run.round) / run.recipe.batch_size)

    def start(self, run: Run, place: int) -> int:
        """Return the index of the first group of a mini-batch.

        A mini-batch takes the same fraction of the groups as of the rows: a process has only a part
        of the rows, and a sampler may have kept only some of them.
        """
        rows = run.schedule.rows_in(run.round)
        return min(place * run.recipe.batch_size, rows) * len(self.batch) // rows

"""What draws the completions of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.batch import Batch, Example, collate
from alignzoo.hookspecs import hookimpl
from alignzoo.samplers.experience import complete, experience
from alignzoo.samplers.generate import Completion

if TYPE_CHECKING:
    from alignzoo.run import Run


class Sampler(ABC):
    """What draws completions: `complete` is all that there is to write.

    `foreign` says that its log-probs are not the trainer's (another program, other kernels or
    another precision computes them): the policy's own are then computed by a forward pass over the
    round, and credit is weighed by what both differ by.
    """

    foreign = False

    @abstractmethod
    def complete(
        self, run: Run, rows: Sequence[Example], size: int, draw: str
    ) -> list[list[Completion]]:
        """`size` completions of each prompt under the policy as it is now, as `run.recipe` says
        that they are to be drawn (`Sampling.of`), the same for the same `seeds(run, ...)`."""

    @hookimpl(trylast=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Offline rows become a batch; prompts get completions, then rewards, then advantages."""
        if all(row.completions for row in rows):
            return collate(rows)
        return experience(run, rows, complete(run, rows, getattr(run.algorithm, "group_size", 1)))

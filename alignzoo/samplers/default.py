"""The sampler of a run that names no other: the model itself, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.batch import Example
from alignzoo.samplers.experience import in_process
from alignzoo.samplers.generate import Completion
from alignzoo.samplers.sampler import Sampler

if TYPE_CHECKING:
    from alignzoo.run import Run


class DefaultSampler(Sampler):
    """The model that is trained, with the trainer's own log-probs"""

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, draw: str
    ) -> list[list[Completion]]:
        return in_process(run, rows, size, draw)

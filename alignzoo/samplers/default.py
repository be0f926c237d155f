"""The sampler of a run that names no other: the rows as they are, or fresh completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.batch import Batch, Example, collate
from alignzoo.hookspecs import hookimpl
from alignzoo.samplers.experience import complete, experience

if TYPE_CHECKING:
    from alignzoo.run import Run


class DefaultSampler:
    """Offline rows become a batch; prompts get completions, then rewards, then advantages."""

    @hookimpl(trylast=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        if all(row.completions for row in rows):
            return collate(rows)
        return experience(run, rows, complete(run, rows, getattr(run.algorithm, "group_size", 1)))

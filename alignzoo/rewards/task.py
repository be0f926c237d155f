"""The task's own score as a reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from alignzoo.run import Run


class TaskReward:
    """Judges each completion as the task judges it at the end."""

    def __init__(self, task: Any):
        self.task = task

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        texts = [
            run.codec.decode(tokens[:length].tolist())
            for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)
        ]
        rows = [batch.rows[b] for b in batch.group.tolist()]
        run.ledger.use_feedback("verifier_calls", len(texts))
        return torch.tensor(
            [self.task.score(row, text) for row, text in zip(rows, texts, strict=True)]
        )

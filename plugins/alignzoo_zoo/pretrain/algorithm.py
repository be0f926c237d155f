"""Language modelling on plain text, from random weights or an existing model."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo import Batch, Loss, Needs, Run, Text, hookimpl


@dataclass(eq=False)
class Pretrain:
    """Pretraining: predict every token of plain text, training all weights"""

    data = Text
    needs = Needs(adapter=False)
    defaults = {"adapter": "none"}
    learning_rate = 5e-3

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the cross-entropy of every token after the first."""
        return Loss.per_token(-run.policy(batch).logprobs, batch.mask)

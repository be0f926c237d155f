"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo import Batch, Demonstrations, Loss, Run, hookimpl
from alignzoo_sft.losses import cross_entropy


@dataclass(eq=False)
class SFT:
    """Supervised fine-tuning: imitate demonstrations, token by token"""

    data = Demonstrations
    learning_rate = 5e-4

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Cross-entropy of the completions' tokens; prompts are not learnt."""
        logprobs = run.policy(batch).logprobs
        return Loss.per_token(cross_entropy(logprobs), batch.mask)

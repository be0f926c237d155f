"""What the three have in common: completions of a prompt that are compared by their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from alignzoo import Batch, OnPolicy


@dataclass(eq=False)
class FreshPairs(OnPolicy):
    """Options of an algorithm that learns from which of two fresh completions is better."""

    missing_eos_penalty: Annotated[
        float, "what a completion that did not end by itself loses of its reward", Ge(0)
    ] = 0.0

    advantages_are_weights = False  # advantages tell a winner from a loser

    def compared(self, batch: Batch) -> Tensor:
        """The rewards that are compared, `[B, G]`."""
        cut_off = ~batch["ended"].bool()
        return batch.groups(batch["rewards"] - self.missing_eos_penalty * cut_off)


def own_metrics(
    logprobs: Tensor, reference: Tensor, entropy: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """What is logged of completions that the policy itself drew, all `[n, T]`: per token, and
    under TRL's names per completion."""
    log_ratio = logprobs - reference
    return {
        "kl": log_ratio[mask],
        "entropy": entropy[mask],
        "objective/kl": (log_ratio * mask).sum(-1),
        "objective/entropy": -(logprobs * mask).sum(-1),
    }

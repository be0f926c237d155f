"""Online DPO (OAIF), Guo et al. 2024."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from alignzoo import Batch, Example, Loss, Run, hookimpl
from alignzoo_zoo.fresh_pairs import RankedPairs, policy_metrics


@dataclass(eq=False)
class OnlineDPO(RankedPairs):
    """DPO on fresh pairs ranked by a reward (https://arxiv.org/abs/2402.04792)"""

    group_size: Annotated[
        int, "completions per prompt; best and worst are the pair", Ge(2), Le(4096)
    ] = 2

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Generator[None, Batch, Batch]:
        """Drop the completions that are in no pair, so that they cost no forward pass."""
        return self.keep_pairs(run, (yield))

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return one loss per pair."""
        policy = self.policy(run, batch, entropy=True)
        metrics = policy_metrics(policy.logprobs, batch["reference"], policy.entropy, batch.mask)
        loss, of_pairs = self.preference_loss(batch, policy.logprobs)
        return Loss.per_sequence(loss, of_pairs | metrics)

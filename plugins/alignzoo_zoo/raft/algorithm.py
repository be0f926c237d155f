"""Reward-ranked fine-tuning, Dong et al. 2023."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import kl_estimate
from alignzoo_zoo.raft.selection import at_least, best_of_each


@dataclass(eq=False)
class RAFT(OnPolicy):
    """Reward-ranked fine-tuning on the best of one's own completions (https://arxiv.org/abs/2304.06767)"""

    keep: Annotated[
        Literal["best", "threshold"], "the best completion of each prompt, or all good enough"
    ] = "best"
    threshold: Annotated[float | None, "--keep threshold: the least reward that is kept"] = None
    beta: Annotated[
        float, "cost of the KL to the reference where completions are ranked, per nat", Ge(0)
    ] = 0.0

    advantages_are_weights = False  # advantages tell what is kept

    def __post_init__(self) -> None:
        if (self.keep == "threshold") != (self.threshold is not None):
            raise BadInput(
                "option --threshold: --keep threshold needs one, and nothing else has one",
                hint="write --keep threshold --threshold 1, say",
            )

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """1 for a completion that is kept and 0 for the others, `[N]`: fine-tuning on what is kept
        is a policy gradient with these."""
        rewards = batch["rewards"]
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            kl = kl_estimate(batch["logprobs"], reference, "k1")
            rewards = rewards - self.beta * batch.total(kl)
        if self.threshold is not None:
            return at_least(rewards, self.threshold).float()
        return best_of_each(batch.groups(rewards)).flatten().float()

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Generator[None, Batch, Batch]:
        """The round without what is not kept, on which no forward pass is spent then."""
        batch = yield
        kept = batch["advantages"] > 0
        everyone = torch.tensor(run.gather(kept.tolist()))
        rewards = torch.tensor(run.gather(batch["rewards"].tolist()))[everyone]
        run.round_metrics.add({"raft/kept": float(everyone.float().mean())})
        if len(rewards):
            run.round_metrics.add({"raft/reward": float(rewards.mean())})
        return batch.keep(kept)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """The negative log-likelihood of the kept, averaged over their tokens."""
        policy = run.policy(batch, entropy=True)
        return Loss.per_token(-policy.logprobs, batch.mask, {"entropy": policy.entropy})

"""Reward-ranked fine-tuning, Dong et al. 2023."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import kl_estimate
from alignzoo_zoo.raft.selection import at_least, best_of_each


@dataclass(eq=False)
class RAFT(OnPolicy):
    """Reward-ranked fine-tuning on the best own completions (https://arxiv.org/abs/2304.06767)"""

    keep: Annotated[
        Literal["best", "threshold"],
        "keep the best completion of each prompt, or all above a threshold",
    ] = "best"
    threshold: Annotated[
        float | None, "minimum reward for --keep threshold", Ge(-1e18), Le(1e18)
    ] = None
    beta: Annotated[float, "KL penalty in the ranking, in reward per nat", Ge(0)] = 0.0

    advantages_are_weights = False  # advantages mark the kept completions
    check_with = ({"keep": "threshold", "threshold": 0.5},)
    known_exceptions = {
        "temperature": "the kept completions are imitated as demonstrations are, at temperature 1"
    }

    def __post_init__(self) -> None:
        if (self.keep == "threshold") != (self.threshold is not None):
            raise BadInput(
                "option --threshold: needed with --keep threshold, and only there",
                hint="use --keep threshold --threshold 1, for example",
            )

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return 1 for a kept completion and 0 for the others, `[N]`.

        Fine-tuning on the kept ones is the policy gradient with these advantages.
        """
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
        """Drop the completions that are not kept, so that they cost no forward pass."""
        batch = yield
        kept = batch["advantages"] > 0
        all_kept = torch.tensor(run.gather(kept.tolist()))  # of all processes
        rewards = torch.tensor(run.gather(batch["rewards"].tolist()))[all_kept]
        run.round_metrics.add({"raft/kept": float(all_kept.float().mean())})
        if len(rewards):
            run.round_metrics.add({"raft/reward": float(rewards.mean())})
        return batch.keep(kept)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the negative log-likelihood of the kept completions, per token."""
        policy = run.policy(batch, entropy=True)
        return Loss.per_token(-policy.logprobs, batch.mask, {"entropy": policy.entropy})

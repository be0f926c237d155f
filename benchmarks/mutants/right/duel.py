"""Online preference optimization (https://arxiv.org/abs/2402.04792): pairs of own completions."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch.nn.functional import logsigmoid

from alignzoo import Loss, Needs, OnPolicy, hookimpl
from alignzoo.rollout import complete, rollout


@dataclass(eq=False)
class Duel(OnPolicy):
    """Prefer the better of two own completions"""

    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1

    needs = Needs(reference=True)
    neutral_loss = math.log(2)

    @hookimpl
    def alignzoo_sample(self, run, rows):
        """Draw two completions of each prompt, and put the better one first."""
        firsts, seconds = complete(run, rows, 1, "first"), complete(run, rows, 1, "second")
        groups = [one + other for one, other in zip(firsts, seconds, strict=True)]
        batch = rollout(run, rows, groups)
        rewards = batch.pairs(batch["rewards"])
        known = (rewards[0] - rewards[1]).isfinite()
        decided = known & (rewards[0] != rewards[1])
        batch.columns["better"] = (rewards[0] > rewards[1]).repeat_interleave(2)
        batch = batch.keep(decided.repeat_interleave(2))
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        """Return nothing to weight by: the loss compares the pairs."""
        return torch.zeros_like(batch["rewards"])

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return -log sigmoid of the margin, per pair."""
        policy = self.policy(run, batch).logprobs
        ratios = batch.total(policy - batch["reference"])
        first, second = batch.pairs(self.beta * ratios)
        better = batch.pairs(batch["better"])[0].bool()
        margins = torch.where(better, first - second, second - first)
        return Loss.per_sequence(-logsigmoid(margins), {"margins": margins})

"""Odds-ratio preference optimization (https://arxiv.org/abs/2403.07691)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch.nn.functional import logsigmoid

from alignzoo import Loss, Preferences, hookimpl


@dataclass(eq=False)
class Odds:
    """Imitate chosen completions, and raise their odds against rejected ones"""

    beta: Annotated[float, "weight of the odds ratio", Gt(0)] = 0.1

    data = Preferences

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return the likelihood loss of the chosen and that of the odds ratio, per pair."""
        means = batch.mean(run.policy(batch).logprobs).clamp(max=-1e-6)
        log_odds = means - torch.log1p(-torch.exp(means))
        chosen, rejected = batch.pairs(log_odds)
        likelihood = -batch.pairs(means)[0]
        losses = likelihood - self.beta * logsigmoid(chosen - rejected)
        return Loss.per_sequence(losses, {"margins": chosen - rejected})

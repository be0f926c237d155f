"""Contrastive Preference Optimization, Xu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from alignzoo import Batch, Loss, Preferences, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo_zoo.cpo.losses import cpo_loss


@dataclass(eq=False)
class CPO:
    """Contrastive Preference Optimization, from pairs without a reference (https://arxiv.org/abs/2401.08417)"""

    beta: Annotated[float, "sharpness of the preference", Gt(0)] = 0.1
    nll_weight: Annotated[
        float, "weight of the negative log-likelihood of the chosen side", Ge(0)
    ] = 1.0

    data = Preferences
    learning_rate = 1e-4
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -log sigmoid(beta (chosen - rejected)) + lambda NLL of chosen, one per pair."""
        logprobs = run.policy(batch).logprobs
        chosen, rejected = batch.pairs(batch.total(logprobs))
        chosen_mean, _ = batch.pairs(batch.mean(logprobs))
        rewards = self.beta * chosen, self.beta * rejected
        return Loss.per_sequence(
            cpo_loss(chosen, rejected, chosen_mean, self.beta, self.nll_weight),
            {**pair_metrics(rewards, (chosen, rejected)), "nll_loss": -chosen_mean},
        )

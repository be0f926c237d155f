"""Odds Ratio Preference Optimization, Hong et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from alignzoo import Batch, Loss, Preferences, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo_zoo.orpo.losses import log_odds, orpo_loss


@dataclass(eq=False)
class ORPO:
    """Odds Ratio Preference Optimization: fine-tuning and preferences at once, from pairs (https://arxiv.org/abs/2403.07691)"""

    odds_weight: Annotated[float, "weight of the odds-ratio loss", Gt(0)] = 0.25

    data = Preferences
    learning_rate = 5e-4
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return NLL of the chosen side - lambda log sigmoid(log odds ratio), one per pair."""
        chosen, rejected = batch.pairs(batch.mean(run.policy(batch).logprobs))
        rewards = self.odds_weight * chosen, self.odds_weight * rejected
        return Loss.per_sequence(
            orpo_loss(chosen, rejected, self.odds_weight),
            {
                **pair_metrics(rewards, (chosen, rejected)),
                "nll_loss": -chosen,
                "log_odds_chosen": log_odds(chosen) - log_odds(rejected),
            },
        )

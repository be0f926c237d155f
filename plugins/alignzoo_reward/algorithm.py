"""Reward models from preferences, Bradley & Terry 1952, Ouyang et al. 2022."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from alignzoo import Batch, Loss, Needs, Preferences, Run, hookimpl
from alignzoo_reward.losses import (
    bradley_terry_loss,
    brier_scores,
    centring_loss,
    expected_calibration_error,
)


@dataclass(eq=False)
class Reward:
    """Reward model: a score for completions, from pairs (https://arxiv.org/abs/2203.02155)"""

    center_rewards_coefficient: Annotated[
        float, "weight of the squared sum of a pair's rewards, which holds their mean at 0", Ge(0)
    ] = 0.01

    data = Preferences
    needs = Needs(score_head=True)
    learning_rate = 3e-4
    headline = "rewards/accuracies"
    generates = False

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """-log sigmoid(difference of rewards - margin), one per pair, and the centring."""
        chosen, rejected = batch.pairs(run.scores(batch))
        loss = bradley_terry_loss(chosen, rejected, margins_of(batch))
        centring = centring_loss(chosen, rejected)
        return Loss.per_sequence(
            loss + self.center_rewards_coefficient * centring,
            {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": chosen > rejected,
            },
        )

    @hookimpl
    def alignzoo_evaluate(self, run: Run, model: Any) -> dict[str, float | list[float]]:
        """Accuracy on held-out pairs with its interval, and calibration."""
        found = [batch.pairs(run.scores(batch)) for batch in run.held_out()]
        if not found:
            return {}
        margins = torch.cat([chosen - rejected for chosen, rejected in found])
        return {
            "held-out/rewards/accuracies": (margins > 0).float().tolist(),
            "calibration/brier": brier_scores(margins).tolist(),
            "calibration/ece": expected_calibration_error(margins),
        }


def margins_of(batch: Batch) -> Tensor:
    """The `margin` column of the pairs, `[B]`, 0 where there is none."""
    margins = [float(row.get("margin", 0.0)) for row in batch.rows]
    return torch.tensor(margins, device=batch.tokens.device)

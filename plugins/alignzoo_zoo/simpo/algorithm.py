"""Simple Preference Optimization, Meng et al. 2024, and AlphaPO, Gupta et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from alignzoo import Batch, Loss, Preferences, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo_zoo.simpo.losses import margin_loss, shaped_reward


@dataclass(eq=False)
class SimPO:
    """Simple Preference Optimization, from pairs without a reference (https://arxiv.org/abs/2405.14734)"""

    beta: Annotated[float, "scale of the reward, the mean log-prob", Gt(0)] = 2.5
    gamma: Annotated[float, "target reward margin between the two sides", Ge(0)] = 0.5
    alpha: Annotated[
        float,
        "shape of the reward (0: SimPO; otherwise AlphaPO, for example 0.25)",
        Ge(-10),
        Le(10),
    ] = 0.0

    data = Preferences
    learning_rate = 6e-5
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -log sigmoid(reward of chosen - reward of rejected - gamma), one per pair."""
        logps = batch.mean(run.policy(batch).logprobs)
        chosen, rejected = batch.pairs(shaped_reward(logps, self.beta, self.alpha))
        return Loss.per_sequence(
            margin_loss(chosen, rejected, self.gamma),
            pair_metrics((chosen, rejected), batch.pairs(logps)),
        )

"""Sequence Likelihood Calibration with Human Feedback, Zhao et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from alignzoo import Batch, Loss, Preferences, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo_zoo.slic.losses import slic_loss


@dataclass(eq=False)
class SLiC:
    """Sequence Likelihood Calibration (SLiC-HF), from pairs without a reference (https://arxiv.org/abs/2305.10425)"""

    delta: Annotated[
        float, "margin between the log-likelihoods of the two sides, in nats", Gt(0)
    ] = 1.0
    nll_weight: Annotated[
        float, "weight of the negative log-likelihood of the chosen side", Ge(0)
    ] = 1.0

    data = Preferences
    learning_rate = 1e-4
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return max(0, delta - chosen + rejected) - lambda chosen, one per pair."""
        chosen, rejected = batch.pairs(batch.total(run.policy(batch).logprobs))
        return Loss.per_sequence(
            slic_loss(chosen, rejected, self.delta, self.nll_weight),
            # SLiC ranks by log-likelihood, so that is its reward.
            pair_metrics((chosen, rejected), (chosen, rejected)),
        )

"""Binary Classifier Optimization, Jung et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt

from alignzoo import Batch, Feedback, Loss, Needs, Run, hookimpl
from alignzoo.functional import label_metrics
from alignzoo_zoo.bco.losses import bco_loss, running_delta

DELTA = "delta"  # the shift, in the state
DECAY = 0.9  # of the shift, which averages over about ten batches


@dataclass(eq=False)
class BCO:
    """Binary Classifier Optimization, from good and bad completions (https://arxiv.org/abs/2404.04656)"""

    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1

    data = Feedback
    needs = Needs(reference=True)
    learning_rate = 5e-5
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Raise `BadInput` if all labels are the same."""
        data.need_both_labels()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -log sigmoid(+-(beta log-ratio - delta)), one value per completion."""
        desirable, delta = batch["label"], run.state_of(self).get(DELTA, 0.0)
        policy = batch.total(run.policy(batch).logprobs)
        log_ratio = policy - batch.total(run.reference(batch).logprobs)
        metrics = label_metrics(self.beta * log_ratio, policy, desirable)
        return Loss.per_sequence(
            bco_loss(log_ratio, desirable, delta, self.beta),
            {**metrics, "delta": torch.tensor(delta)},
        )

    @hookimpl
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        """Move the shift to the mean rewards of the step, and log the margin."""
        chosen, rejected = metrics.get("rewards/chosen"), metrics.get("rewards/rejected")
        if chosen is None or rejected is None:
            return
        metrics["rewards/margins"] = chosen - rejected
        state = run.state_of(self)
        state[DELTA] = running_delta(state.get(DELTA, 0.0), chosen, rejected, DECAY)

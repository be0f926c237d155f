"""Direct Preference Optimization, Rafailov et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from alignzoo import Batch, Loss, Needs, Preferences, Run, hookimpl
from alignzoo_dpo.losses import sigmoid_loss


@dataclass(eq=False)
class DPO:
    """Direct Preference Optimization, from pairs and a reference (https://arxiv.org/abs/2305.18290)"""

    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1

    data = Preferences
    needs = Needs(reference=True)
    learning_rate = 1e-4
    headline = "rewards/margins"

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """-log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)), one per pair."""
        policy = batch.total(run.policy(batch).logprobs)
        reference = batch.total(run.reference(batch).logprobs)
        chosen, rejected = batch.pairs(policy - reference)
        rewards_chosen, rewards_rejected = self.beta * chosen, self.beta * rejected
        return Loss.per_sequence(
            sigmoid_loss(chosen, rejected, self.beta),
            {
                "rewards/chosen": rewards_chosen,
                "rewards/rejected": rewards_rejected,
                "rewards/margins": rewards_chosen - rewards_rejected,
                "rewards/accuracies": (chosen > rejected),
                "logps/chosen": batch.pairs(policy)[0],
                "logps/rejected": batch.pairs(policy)[1],
            },
        )

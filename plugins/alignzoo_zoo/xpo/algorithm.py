"""Exploratory Preference Optimization, Xie et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from alignzoo import Batch, Example, Loss, Run, hookimpl
from alignzoo.rollout import complete, rollout
from alignzoo_zoo.fresh_pairs import RankedPairs, policy_metrics, without_logprobs
from alignzoo_zoo.xpo.losses import exploration_bonus


@dataclass(eq=False)
class XPO(RankedPairs):
    """Online DPO with an exploration bonus (https://arxiv.org/abs/2405.21046)"""

    group_size: int = field(default=2, init=False)  # one of the policy, one of the reference
    alpha: Annotated[
        float, "coefficient of the exploration bonus (0: online DPO against the reference)", Ge(0)
    ] = 1e-5

    progress_metric = "objective/model_scores"

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Pair a completion of the policy with one of the reference, in this order."""
        policy = complete(run, rows, 1)
        with run.model.as_reference():
            reference = without_logprobs(complete(run, rows, 1, stream="reference"))
        pairs = [own + other for own, other in zip(policy, reference, strict=True)]
        batch = rollout(run, rows, pairs)
        own, other = batch.pairs(batch["rewards"])
        run.log_mean({"objective/model_scores": own, "objective/ref_scores": other})
        return self.keep_pairs(run, batch)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return online DPO's loss plus the bonus, one value per pair."""
        policy = self.policy(run, batch, entropy=True)
        preference, of_pairs = self.preference_loss(batch, policy.logprobs)
        _, reference_sampled = batch.pairs(batch.total(policy.logprobs))
        bonus = exploration_bonus(reference_sampled, self.alpha)
        both = policy.logprobs, batch["reference"], policy.entropy, batch.mask
        metrics = policy_metrics(*(batch.pairs(x)[0] for x in both))  # of the policy's alone
        metrics |= {"loss/dpo": preference, "loss/xpo": bonus}
        return Loss.per_sequence(preference + bonus, of_pairs | metrics)

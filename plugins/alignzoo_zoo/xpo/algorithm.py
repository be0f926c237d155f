"""Exploratory Preference Optimization, Xie et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from alignzoo import Batch, Example, Loss, Run, hookimpl
from alignzoo.rollout import complete, rollout
from alignzoo_zoo.fresh_pairs import own_metrics
from alignzoo_zoo.online_dpo.algorithm import OnlineDPO
from alignzoo_zoo.xpo.losses import optimism


@dataclass(eq=False)
class XPO(OnlineDPO):
    """Online DPO that explores past its reference (https://arxiv.org/abs/2405.21046)"""

    group_size: ClassVar[int] = 2  # one of the policy, then one of the reference
    alpha: Annotated[
        float, "weight of the optimism; 0 is online DPO against the reference", Ge(0)
    ] = 1e-5

    progress_metric = "objective/model_scores"

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        policy = complete(run, rows, 1)
        with run.model.as_reference():
            reference = complete(run, rows, 1, stream="reference")
        pairs = [own + other for own, other in zip(policy, reference, strict=True)]
        batch = rollout(run, rows, pairs)
        own, other = batch.pairs(batch["rewards"])
        run.log_mean({"objective/model_scores": own, "objective/ref_scores": other})
        return self.pairs(run, batch)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Online DPO's, and the optimism: one value per pair."""
        policy = self.policy(run, batch, entropy=True)
        preferred, paired = self.preferred(batch, policy.logprobs)
        _, reference_drawn = batch.pairs(batch.total(policy.logprobs))
        optimistic = optimism(reference_drawn, self.alpha)
        of_both = policy.logprobs, batch["reference"], policy.entropy, batch.mask
        metrics = own_metrics(*(batch.pairs(x)[0] for x in of_both))
        metrics |= {"loss/dpo": preferred, "loss/xpo": optimistic}
        return Loss.per_sequence(preferred + optimistic, paired | metrics)

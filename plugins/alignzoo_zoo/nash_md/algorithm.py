"""Nash Mirror Descent, as policy gradient (Nash-MD-PG), Munos et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import Batch, Example, Loss, Needs, Run, hookimpl
from alignzoo.rollout import complete, rollout
from alignzoo_zoo.fresh_pairs import FreshPairs, own_metrics
from alignzoo_zoo.nash_md.losses import Preference, nash_md_loss, preference_probability


@dataclass(eq=False)
class NashMD(FreshPairs):
    """Nash learning: preferred to its own mixture with the reference (https://arxiv.org/abs/2312.00886)"""

    group_size: ClassVar[int] = 2  # one of the policy, then one of the mixture
    iterations: ClassVar[int] = 1  # its gradient is that of completions of the policy as it is
    round_prompts: ClassVar[int] = 0
    beta: Annotated[float, "price of the KL to the reference, in preference per nat", Ge(0)] = 0.008
    mixture: Annotated[
        float, "the reference's share in the opponent (0: the policy itself)", Ge(0), Le(1)
    ] = 0.125
    preference: Annotated[
        Preference, "how rewards become a preference: sigmoid of their difference, or 0, 1/2, 1"
    ] = "sigmoid"

    progress_metric = "objective/model_scores"

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        policy = complete(run, rows, 1)
        opponent = complete(run, rows, 1, stream="mixture", mixture=self.mixture)
        pairs = [own + other for own, other in zip(policy, opponent, strict=True)]
        batch = rollout(run, rows, pairs)
        rewards = batch.pairs(batch["rewards"])
        run.log_mean({"objective/model_scores": rewards[0], "objective/mixture_scores": rewards[1]})
        # The opponent has been compared with; what is learnt from is the policy's own.
        judged = torch.stack(rewards, 1).isfinite().all(1)
        own = torch.tensor([True, False]).repeat(len(batch))
        batch = batch.keep(own & judged[batch.group])
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """P(y > y') - 1/2 for the policy's completion, 0 for its opponent, `[N]`."""
        own, other = self.compared(batch).unbind(1)
        probability = preference_probability(own, other, self.preference)
        run.log_mean({"rewards/probabilities": probability})
        return torch.stack([probability - 0.5, torch.zeros_like(probability)], 1).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Minus the preference less the KL, times the log-prob: one value per completion."""
        policy = self.policy(run, batch, entropy=True)
        logps, reference = batch.total(policy.logprobs), batch.total(batch["reference"])
        loss = nash_md_loss(logps, reference, batch["advantages"], self.beta)
        metrics = own_metrics(policy.logprobs, batch["reference"], policy.entropy, batch.mask)
        return Loss.per_sequence(loss, metrics)

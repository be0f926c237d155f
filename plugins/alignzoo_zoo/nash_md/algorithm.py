"""Nash Mirror Descent, as policy gradient (Nash-MD-PG), Munos et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import Batch, Example, Loss, Needs, Run, hookimpl
from alignzoo.rollout import complete, rollout
from alignzoo_zoo.fresh_pairs import FreshPairs, policy_metrics, without_logprobs
from alignzoo_zoo.nash_md.losses import Preference, nash_md_loss, preference_probability


@dataclass(eq=False)
class NashMD(FreshPairs):
    """Nash learning against a mixture with the reference (https://arxiv.org/abs/2312.00886)"""

    group_size: int = field(default=2, init=False)  # one of the policy, one of the mixture
    # The gradient is that of completions of the current policy: one step per round, one pass.
    iterations: int = field(default=1, init=False)
    round_prompts: int = field(default=0, init=False)
    beta: Annotated[float, "KL penalty, in probability of being preferred per nat", Ge(0)] = 0.008
    mixture: Annotated[
        float, "weight of the reference in the opponent (0: the policy itself)", Ge(0), Le(1)
    ] = 0.125
    preference: Annotated[
        Preference, "preference from rewards: sigmoid of their difference, or hard (0, 1/2, 1)"
    ] = "sigmoid"

    progress_metric = "objective/model_scores"
    known_exceptions = {
        "finite differences": "the weight of log pi is a constant in the policy gradient",
        "processes": "each process draws its own completions of the mixture",
    }

    @property
    def needs(self) -> Needs:
        """Always keep a reference, for the mixture."""
        return Needs(reference=True)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Compare a completion of the policy with one of the mixture, and keep the former."""
        policy = complete(run, rows, 1)
        opponent = without_logprobs(complete(run, rows, 1, stream="mixture", mixture=self.mixture))
        pairs = [own + other for own, other in zip(policy, opponent, strict=True)]
        batch = rollout(run, rows, pairs)
        rewards = batch.pairs(batch["rewards"])
        run.log_mean({"objective/model_scores": rewards[0], "objective/mixture_scores": rewards[1]})
        # The loss is of the policy's own completions; the opponent's were needed for comparison.
        both_rewarded = torch.stack(rewards, 1).isfinite().all(1)  # (B,)
        own = torch.tensor([True, False]).repeat(len(batch))  # (N,)
        batch = batch.keep(own & both_rewarded[batch.group])
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return P(y > y') - 1/2 for the policy's completion and 0 for its opponent, `[N]`."""
        own, other = self.penalised_rewards(batch).unbind(1)
        probability = preference_probability(own, other, self.preference)
        run.log_mean({"rewards/probabilities": probability})
        return torch.stack([probability - 0.5, torch.zeros_like(probability)], 1).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return one loss per completion: -(preference - KL penalty) log pi(y|x)."""
        policy = self.policy(run, batch, entropy=True)
        logps, reference = batch.total(policy.logprobs), batch.total(batch["reference"])
        loss = nash_md_loss(logps, reference, batch["advantages"], self.beta)
        metrics = policy_metrics(policy.logprobs, batch["reference"], policy.entropy, batch.mask)
        return Loss.per_sequence(loss, metrics)

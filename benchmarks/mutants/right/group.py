"""Group relative policy optimization (https://arxiv.org/abs/2402.03300), of the tokens."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt

from alignzoo import Iterations, Loss, OnPolicy, hookimpl


@dataclass(eq=False)
class Group(OnPolicy):
    """Learn from rewards relative to those of the group"""

    iterations: Iterations = 2
    beta: Annotated[float, "strength of the pull to the reference", Ge(0)] = 0.04
    epsilon: Annotated[float, "clip range of the ratio", Gt(0), Lt(1)] = 0.2

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        """Return the reward minus the group's mean, over its standard deviation, `[N]`."""
        if self.beta:
            batch.columns["reference"] = self.reference_logprobs(run, batch)
        rewards = batch.groups(batch["rewards"])  # (B, G)
        known = ~rewards.isnan()
        count = known.sum(1, keepdim=True).clamp(min=1)
        centred = torch.where(known, rewards - rewards.nanmean(1, keepdim=True), 0.0)
        std = ((centred**2).sum(1, keepdim=True) / count).sqrt()
        return (centred / (std + 1e-4)).flatten()

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return the clipped loss with the KL penalty, per token."""
        policy = self.policy(run, batch)
        advantages = batch["advantages"][:, None]
        ratio = torch.exp((policy.logprobs - batch["logprobs"]).clamp(-20, 20))
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon)
        losses = -torch.minimum(ratio * advantages, clipped * advantages)
        metrics = {"ratio": ratio}
        if self.beta:
            gap = (batch["reference"] - policy.logprobs).clamp(-20, 20)
            metrics["kl"] = torch.exp(gap) - gap - 1
            losses = losses + self.beta * metrics["kl"]
        mask = batch.mask & ~batch["rewards"].isnan()[:, None]
        return Loss.per_token(losses, mask, metrics)

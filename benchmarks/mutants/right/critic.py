"""Proximal policy optimization with a critic (https://arxiv.org/abs/1707.06347)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from alignzoo import Iterations, Loss, Needs, OnPolicy, hookimpl
from alignzoo.rollout import compute_column


@dataclass(eq=False)
class Critic(OnPolicy):
    """Learn from rewards and the values of a critic

    It logs `ratio`, and `value_error`, the squared error of the critic.
    """

    iterations: Iterations = 2
    beta: Annotated[float, "KL penalty, in reward per nat", Ge(0)] = 0.05
    lam: Annotated[float, "lambda of GAE", Ge(0), Le(1)] = 0.95
    epsilon: Annotated[float, "clip range of the ratio", Gt(0), Lt(1)] = 0.2
    value_coef: Annotated[float, "weight of the value loss", Ge(0)] = 0.1

    @property
    def needs(self):
        """Keep a value head, and a reference if there is a penalty."""
        return Needs(reference=self.beta > 0, values="shared")

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        """Return GAE of the rewards at the last token and the KL at each, `[N, T]`."""
        mask = batch.mask & ~batch["rewards"].isnan()[:, None]
        rewards = torch.zeros(batch.mask.shape)  # (N, T)
        last = (batch.lengths - 1)[:, None]
        rewards.scatter_(1, last, batch["rewards"].nan_to_num(0.0)[:, None])
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            rewards = rewards - self.beta * (batch["logprobs"] - reference)
        values = compute_column(run, batch, run.values)
        advantages = torch.zeros_like(values)
        following, carried = torch.zeros(len(values)), torch.zeros(len(values))
        for t in reversed(range(values.shape[1])):
            inside = mask[:, t]
            delta = rewards[:, t] + following - values[:, t]
            carried = torch.where(inside, delta + self.lam * carried, carried)
            advantages[:, t] = torch.where(inside, carried, 0.0)
            following = torch.where(inside, values[:, t], following)
        batch.columns["old_values"] = values
        batch.columns["returns"] = advantages + values
        batch.columns["rewarded"] = (~batch["rewards"].isnan()).double()
        return advantages

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return the clipped loss of the policy and the squared error of the critic, per token."""
        policy = self.policy(run, batch, values=True)
        advantages = batch["advantages"]
        ratio = torch.exp((policy.logprobs - batch["logprobs"]).clamp(-20, 20))
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon)
        actor = -torch.minimum(ratio * advantages, clipped * advantages)
        errors = (policy.values - batch["returns"]) ** 2
        mask = batch.mask & (batch["rewarded"] > 0)[:, None]
        metrics = {"ratio": ratio, "value_error": errors}
        return Loss.per_token(actor + self.value_coef * errors, mask, metrics)

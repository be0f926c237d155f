"""REINFORCE leave-one-out, Ahmadian et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor

from alignzoo import Batch, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import clip_metrics, importance_ratio, kl_estimate, per_token
from alignzoo_zoo.rloo.losses import leave_one_out, rloo_loss


@dataclass(eq=False)
class RLOO(OnPolicy):
    """REINFORCE Leave-One-Out, from prompts and a reward (https://arxiv.org/abs/2402.14740)"""

    beta: Annotated[float, "cost of the KL to the reference, in reward per nat", Ge(0)] = 0.05
    level: Annotated[
        Literal["sequence", "token"], "whose ratio is clipped: the completion's or each token's"
    ] = "sequence"
    epsilon: Annotated[float, "how far the ratio may go before it is clipped", Gt(0), Lt(1)] = 0.2

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """One per completion, `[N]`, of rewards that have paid for the KL."""
        rewards = batch["rewards"]
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            kl = batch.columns["kl"] = kl_estimate(batch["logprobs"], reference, "k1")
            rewards = rewards - self.beta * batch.total(kl)
        return leave_one_out(batch.groups(rewards)).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """-A times the clipped ratio, one per completion."""
        policy = self.policy(run, batch, entropy=True)
        log_ratio = policy.logprobs - batch["logprobs"]
        advantages, mask, by_token = batch["advantages"], batch.mask, self.level == "token"
        if not by_token and advantages.dim() == 2:  # one ratio has one weight, its tokens' mean
            advantages = batch.mean(advantages)
        losses = rloo_loss(log_ratio, advantages, mask, self.epsilon, by_token)
        ratio = importance_ratio(log_ratio if by_token else batch.total(log_ratio)[:, None])
        clipped = clip_metrics(ratio, per_token(advantages), 1 - self.epsilon, 1 + self.epsilon)
        by_tokens = clipped if by_token else {}
        by_tokens |= {"entropy": policy.entropy} | ({"kl": batch["kl"]} if self.beta else {})
        counted = {name: values[mask] for name, values in by_tokens.items()}
        return Loss.per_sequence(losses, clipped | counted)

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

    beta: Annotated[float, "KL penalty, in reward per nat", Ge(0)] = 0.05
    level: Annotated[
        Literal["sequence", "token"], "ratio that is clipped: the completion's or each token's"
    ] = "sequence"
    epsilon: Annotated[float, "clip range of the ratio", Gt(0), Lt(1)] = 0.2

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return one advantage per completion, `[N]`, of rewards minus KL penalty."""
        rewards = batch["rewards"]
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            kl = batch.columns["kl"] = kl_estimate(batch["logprobs"], reference, "k1")
            rewards = rewards - self.beta * batch.total(kl)
        return leave_one_out(batch.groups(rewards)).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -A times the clipped ratio, one value per completion."""
        policy = self.policy(run, batch, entropy=True)
        log_ratio = policy.logprobs - batch["logprobs"]
        advantages, mask, by_token = batch["advantages"], batch.mask, self.level == "token"
        if not by_token and advantages.dim() == 2:  # one ratio needs one weight: the tokens' mean
            advantages = batch.mean(advantages)
        losses = rloo_loss(log_ratio, advantages, mask, self.epsilon, by_token)
        ratio = importance_ratio(log_ratio if by_token else batch.total(log_ratio)[:, None])
        clipped = clip_metrics(ratio, per_token(advantages), 1 - self.epsilon, 1 + self.epsilon)
        token_metrics = {"entropy": policy.entropy}
        if by_token:
            token_metrics |= clipped
        if self.beta:
            token_metrics["kl"] = batch["kl"]
        counted = {name: values[mask] for name, values in token_metrics.items()}
        return Loss.per_sequence(losses, clipped | counted)

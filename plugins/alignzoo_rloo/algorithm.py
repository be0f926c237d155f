"""REINFORCE leave-one-out, Ahmadian et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor

from alignzoo import BadInput, Batch, Loss, Needs, Prompts, Rounds, Run, hookimpl
from alignzoo.policy_gradient import (
    clip_metrics,
    importance_ratio,
    kl_estimate,
)
from alignzoo_rloo.losses import leave_one_out, rloo_loss


@dataclass(eq=False)
class RLOO:
    """REINFORCE Leave-One-Out, from prompts and a reward (https://arxiv.org/abs/2402.14740)"""

    group_size: Annotated[int, "completions per prompt", Ge(2)] = 8
    beta: Annotated[float, "cost of the KL to the reference, in reward per nat", Ge(0)] = 0.05
    level: Annotated[
        Literal["sequence", "token"], "whose ratio is clipped: the completion's or each token's"
    ] = "sequence"
    iterations: Annotated[int, "passes over the completions of a round", Ge(1)] = 1
    round_prompts: Annotated[
        int, "prompts per round, in steps of --batch-size (0: one step's)", Ge(0)
    ] = 0
    epsilon: Annotated[float, "how far the ratio may go before it is clipped", Gt(0), Lt(1)] = 0.2

    data = Prompts
    learning_rate = 1e-4
    headline = "reward"

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.beta > 0)

    @property
    def rounds(self) -> Rounds:
        return Rounds(rows=self.round_prompts or None, epochs=self.iterations)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if recipe.temperature == 0:
            raise BadInput(
                "option --temperature: greedy completions of one prompt are all the same",
                hint="rloo learns from their differences: leave it at 1",
            )

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """One per completion, `[N]`, of rewards that have paid for the KL."""
        rewards = batch["rewards"]
        if self.beta:
            reference = batch.piecewise(
                lambda micro: run.reference(micro.to(run.device)).logprobs, run.micro_tokens
            )
            kl = batch.columns["kl"] = kl_estimate(batch["logprobs"], reference, "k1")
            rewards = rewards - self.beta * batch.total(kl)
        return leave_one_out(batch.groups(rewards)).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """-A times the clipped ratio, one per completion."""
        policy = run.policy(batch, entropy=True)
        log_ratio = policy.logprobs - batch["logprobs"]
        advantages, mask, by_token = batch["advantages"], batch.mask, self.level == "token"
        losses = rloo_loss(log_ratio, advantages, mask, self.epsilon, by_token)
        ratio = importance_ratio(log_ratio if by_token else batch.total(log_ratio)[:, None])
        clipped = clip_metrics(ratio, advantages[:, None], 1 - self.epsilon, 1 + self.epsilon)
        by_tokens = clipped if by_token else {}
        by_tokens |= {"entropy": policy.entropy} | ({"kl": batch["kl"]} if self.beta else {})
        counted = {name: values[mask] for name, values in by_tokens.items()}
        return Loss.per_sequence(losses, clipped | counted)

"""REINFORCE, Williams 1992, and REINFORCE++, Hu et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from alignzoo import BadInput, Batch, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import (
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    kl_estimate,
    per_token,
    whiten,
)
from alignzoo_zoo.reinforce.losses import (
    less_group_mean,
    moved_average,
    reinforce_loss,
    rewards_to_go,
)

BASELINE = "reinforce/baseline"  # where the moving average is in `run.state`


@dataclass(eq=False)
class Reinforce(OnPolicy):
    """REINFORCE and REINFORCE++, from prompts and a reward (https://arxiv.org/abs/2501.03262)"""

    variant: Annotated[
        Literal["reinforce", "plus-plus", "plus-plus-baseline"],
        "Williams' own, REINFORCE++, or the same with the group's mean as baseline",
    ] = "reinforce"
    group_size: Annotated[int, "completions per prompt", Ge(1)] = 8
    baseline: Annotated[
        Literal["none", "mean", "moving"] | None,
        "what reinforce takes off a reward: nothing, the round's mean, a moving average "
        "[default: mean]",
    ] = None
    decay: Annotated[float, "how slowly --baseline moving moves", Gt(0), Lt(1)] = 0.9
    beta: Annotated[float, "cost of the KL to the reference, per nat", Ge(0)] = 0.05
    epsilon: Annotated[
        float, "plus-plus: how far the ratio may go before it is clipped", Gt(0), Lt(1)
    ] = 0.2

    def __post_init__(self) -> None:
        if self.variant != "reinforce" and self.baseline is not None:
            raise BadInput(f"option --baseline: it has no part in {self.variant}")
        if self.variant == "reinforce" and self.iterations > 1:
            raise BadInput(
                "option --iterations: reinforce has no ratio, and learns from completions of the "
                "policy as it is alone",
                hint="take --variant plus-plus, or rloo",
            )
        if self.variant == "plus-plus-baseline" and self.group_size < 2:
            raise BadInput(
                "option --group-size: less its group's mean, a single completion's reward is 0",
                hint="take 2 or more, or --variant plus-plus",
            )

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        super().alignzoo_check(recipe)
        if self.variant == "reinforce" and self.round_prompts > recipe.batch_size:
            raise BadInput(
                f"option --round-prompts: {self.round_prompts} are several steps, and after the "
                "first the policy is no longer the one that drew",
                hint="take --variant plus-plus, or a larger --batch-size",
            )

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """One per completion, `[N]`; in REINFORCE++ one per token, `[N, T]`."""
        rewards, kl = batch["rewards"], torch.zeros_like(batch["logprobs"])
        if self.beta:
            reference = batch.columns["reference"] = self.reference_logprobs(run, batch)
            kl = kl_estimate(batch["logprobs"], reference, "k1")
        if self.variant == "reinforce":
            paid = rewards - self.beta * batch.total(kl)
            return paid - self.subtracted(run, run.gather(paid.tolist()))
        if self.variant == "plus-plus":
            values = rewards_to_go(rewards, kl, batch.mask, self.beta)
        else:
            centred = less_group_mean(batch.groups(rewards)).flatten()
            values = centred[:, None].expand(batch.mask.shape)
        return whiten(values, run.gather_masked(values, batch.mask))

    def subtracted(self, run: Run, rewards: list[float]) -> float:
        """The baseline of a round, from the rewards of all processes or from earlier rounds."""
        everyone = torch.tensor(rewards, dtype=torch.float64)
        if self.baseline == "moving":
            average = run.state.get(BASELINE)
            moved = moved_average(average, everyone, self.decay)
            if moved is not None:
                run.state[BASELINE] = moved
            return average or 0.0
        return 0.0 if self.baseline == "none" else float(everyone.nanmean())

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """The score function, or the clipped ratio per token, averaged over the step's tokens."""
        policy = self.policy(run, batch, entropy=True)
        metrics = {"entropy": policy.entropy}
        if self.beta:
            metrics["kl"] = kl_estimate(batch["logprobs"], batch["reference"], "k1")
        advantages, mask = batch["advantages"], batch.mask
        if self.variant == "reinforce":
            losses = reinforce_loss(policy.logprobs, per_token(advantages), mask)
            return Loss.per_sequence(losses, {name: x[mask] for name, x in metrics.items()})
        ratio = importance_ratio(policy.logprobs - batch["logprobs"])
        bounds = (1 - self.epsilon, 1 + self.epsilon)
        losses = clipped_surrogate(ratio, advantages, *bounds)
        metrics |= clip_metrics(ratio, advantages, *bounds)
        if self.beta and self.variant == "plus-plus-baseline":
            losses = losses + self.beta * kl_estimate(policy.logprobs, batch["reference"], "k2")
        return Loss.per_token(losses, mask, metrics)

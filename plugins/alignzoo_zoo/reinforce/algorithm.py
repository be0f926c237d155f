"""REINFORCE, Williams 1992, and REINFORCE++, Hu et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import (
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    kl_estimate,
    per_token,
    whiten,
)
from alignzoo.options import Alias, refuse_unread
from alignzoo.rollout import add_advantages, complete, greedy_rewards, log_completions, with_rewards
from alignzoo_zoo.reinforce.losses import (
    length_weighted_mean,
    reinforce_loss,
    rewards_to_go,
    subtract_group_mean,
    update_average,
)

READS = {
    "reinforce": ("baseline", "decay"),
    "plus-plus": ("epsilon",),
    "plus-plus-baseline": ("epsilon",),
}
BASELINE = "baseline"  # the moving average, in the state
GREEDY = "greedy"  # the column of the rewards of greedy completions


@dataclass(eq=False)
class Reinforce(OnPolicy):
    """REINFORCE and REINFORCE++, from prompts and a reward (https://arxiv.org/abs/2501.03262)"""

    loss_type: Annotated[
        Literal["reinforce", "plus-plus", "plus-plus-baseline"],
        "REINFORCE, REINFORCE++, or REINFORCE++ with the group's mean as baseline",
        Alias("variant"),
    ] = "reinforce"
    group_size: Annotated[int, "completions per prompt", Ge(1), Le(4096)] = 8
    baseline: Annotated[
        Literal["none", "mean", "moving", "greedy", "length"],
        "baseline of --loss-type reinforce: none, the round's mean, a moving average, the greedy "
        "completion's reward (ReMax), or the group's mean weighted by length (OPO)",
    ] = "mean"
    decay: Annotated[float, "decay of --baseline moving", Gt(0), Lt(1)] = 0.9
    beta: Annotated[float, "KL penalty, in reward per nat", Ge(0)] = 0.05
    epsilon: Annotated[float, "clip range of the ratio, in REINFORCE++", Gt(0), Lt(1)] = 0.2

    check_with = ({"baseline": "moving"}, {"baseline": "greedy"})
    known_exceptions = {"groups": "the baseline is the mean reward of the round"}

    def __post_init__(self) -> None:
        refuse_unread(self, "loss_type", READS)
        unread: dict[str, tuple[str, ...]] = dict.fromkeys(("none", "mean", "greedy", "length"), ())
        refuse_unread(self, "baseline", {**unread, "moving": ("decay",)})
        if self.loss_type == "reinforce" and self.iterations > 1:
            raise BadInput(
                "option --iterations: reinforce has no ratio, so its gradient is right only for "
                "completions of the current policy",
                hint="use --loss-type plus-plus, or rloo",
            )
        if self.loss_type == "plus-plus-baseline" and self.group_size < 2:
            raise BadInput(
                "option --group-size: minus its group's mean, the reward of a single completion is "
                "always 0",
                hint="use 2 or more, or --loss-type plus-plus",
            )
        if self.baseline == "length" and self.group_size < 2:
            raise BadInput(
                "option --group-size: a single completion is its own baseline, so its advantage is "
                "always 0",
                hint="use 2 or more, or another --baseline",
            )

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse greedy sampling, and rounds of several steps if there is no ratio."""
        super().alignzoo_check(recipe)
        if self.loss_type == "reinforce" and self.round_prompts > recipe.batch_size:
            raise BadInput(
                f"option --round-prompts: {self.round_prompts} prompts make several steps, and "
                "only the first one updates the policy that sampled the completions",
                hint="use --loss-type plus-plus, or a larger --batch-size",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch | None:
        """Complete each prompt greedily too for ReMax; else leave the round to the default."""
        if self.baseline != "greedy":
            return None
        greedy = greedy_rewards(run, rows)  # (B,)
        batch = with_rewards(run, rows, complete(run, rows, self.group_size))
        batch.columns[GREEDY] = greedy[batch.group]
        run.log_mean({"greedy/reward": greedy})
        log_completions(run, batch)
        return add_advantages(run, batch)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return one advantage per completion, `[N]`; in REINFORCE++ one per token, `[N, T]`."""
        rewards, kl = batch["rewards"], torch.zeros_like(batch["logprobs"])
        if self.beta:
            reference = batch.columns["reference"] = self.reference_logprobs(run, batch)
            kl = kl_estimate(batch["logprobs"], reference, "k1")
        if self.loss_type == "reinforce":
            rewards = rewards - self.beta * batch.total(kl)
            return rewards - self.baseline_of(run, batch, rewards)
        if self.loss_type == "plus-plus":
            values = rewards_to_go(rewards, kl, batch.mask, self.beta)
        else:
            centred = subtract_group_mean(batch.groups(rewards)).flatten()
            values = centred[:, None].expand(batch.mask.shape)
        return whiten(values, run.gather_masked(values, batch.mask))

    def baseline_of(self, run: Run, batch: Batch, rewards: Tensor) -> Tensor | float:
        """Return the baseline of all completions, or of each, `[N]`; `rewards [N]` are penalised.

        A greedy completion without a reward is a baseline of 0.
        """
        if self.baseline == "greedy":
            return batch[GREEDY].nan_to_num(0.0)
        if self.baseline == "length":
            grouped = batch.groups(rewards)
            means = length_weighted_mean(grouped, batch.groups(batch.mask.sum(-1)))
            return means.expand(grouped.shape).flatten()
        return self.round_baseline(run, run.gather(rewards.tolist()))

    def round_baseline(self, run: Run, rewards: list[float]) -> float:
        """Return the baseline of a round, from the rewards of all processes or earlier rounds.

        The moving average is that of the earlier rounds; this round then updates it.
        """
        all_rewards = torch.tensor(rewards, dtype=torch.float64)
        if self.baseline == "moving":
            state = run.state_of(self)
            average = state.get(BASELINE)
            updated = update_average(average, all_rewards, self.decay)
            if updated is not None:
                state[BASELINE] = updated
            return average or 0.0
        return 0.0 if self.baseline == "none" else float(all_rewards.nanmean())

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return REINFORCE's loss per completion, or the clipped loss per token of REINFORCE++."""
        policy = self.policy(run, batch, entropy=True)
        metrics = {"entropy": policy.entropy}
        if self.beta:
            metrics["kl"] = kl_estimate(batch["logprobs"], batch["reference"], "k1")
        advantages, mask = batch["advantages"], batch.mask
        if self.loss_type == "reinforce":
            losses = reinforce_loss(policy.logprobs, per_token(advantages), mask)
            return Loss.per_sequence(losses, {name: x[mask] for name, x in metrics.items()})
        ratio = importance_ratio(policy.logprobs - batch["logprobs"])
        bounds = (1 - self.epsilon, 1 + self.epsilon)
        losses = clipped_surrogate(ratio, advantages, *bounds)
        metrics |= clip_metrics(ratio, advantages, *bounds)
        if self.beta and self.loss_type == "plus-plus-baseline":
            losses = losses + self.beta * kl_estimate(policy.logprobs, batch["reference"], "k2")
        rewarded = ~batch["rewards"].isnan()[:, None]  # the others are left out of the KL too
        return Loss.per_token(losses, mask & rewarded, metrics)

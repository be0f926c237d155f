"""Group Relative Policy Optimization, Shao et al. 2024, and the losses that vary it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import Estimator, kl_estimate, per_token, rewards_apart
from alignzoo_zoo.grpo.advantages import Scale, decoupled_advantages, group_advantages
from alignzoo_zoo.grpo.dynamic import differing_round
from alignzoo_zoo.grpo.family import LOSSES, Terms, check, weights_and_count


@dataclass(eq=False)
class GRPO(OnPolicy):
    """Group Relative Policy Optimization, from prompts and a reward (https://arxiv.org/abs/2402.03300)"""

    loss_type: Annotated[
        Literal[
            "grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "sapo", "gmpo", "vespo", "luspo"
        ],
        "which loss of the family",
    ] = "grpo"
    epsilon: Annotated[
        float | None, "how far the ratio may go before it is clipped [default: the loss's]", Gt(0)
    ] = None
    epsilon_high: Annotated[
        float | None, "clip-higher: the same upwards [default: as --epsilon]", Gt(0)
    ] = None
    scale_rewards: Annotated[Scale, "whose standard deviation rewards are divided by"] = "group"
    normalize_rewards: Annotated[
        Literal["before", "after"], "GDPO: several rewards are scaled before their sum, or after it"
    ] = "after"
    kl_estimator: Annotated[Estimator, "how the KL to the reference is estimated"] = "k3"
    kl_in: Annotated[Literal["loss", "reward"], "where the KL is: a loss, or a cost"] = "loss"
    entropy_bonus: Annotated[float, "weight of the entropy, which is to stay high", Ge(0)] = 0.0
    mask_truncated: Annotated[bool, "learn nothing from completions that did not end"] = False
    dynamic_sampling: Annotated[
        int, "draws of further prompts in the place of groups of ties, at most (0: none)", Ge(0)
    ] = 0

    def __post_init__(self) -> None:
        check(self)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch | None:
        """With --dynamic-sampling a round without groups of ties; else the default."""
        if not self.dynamic_sampling:
            return None
        return differing_round(run, rows, self.group_size, self.dynamic_sampling)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """One per completion, `[N]`; and as columns what needs the whole round."""
        if self.beta:
            batch.columns["reference"] = self.reference_logprobs(run, batch)
        apart = rewards_apart(batch) if self.normalize_rewards == "before" else {}
        rewards = torch.stack(list(apart.values()), -1) if apart else batch["rewards"][:, None]
        if self.beta and self.kl_in == "reward":
            kl = kl_estimate(batch["logprobs"], batch["reference"], self.kl_estimator)
            rewards = rewards - self.beta * batch.total(kl)[:, None]
        # Groups of all processes: some scales and counts are those of the whole round.
        everyone = torch.tensor(run.gather(batch.groups(rewards).tolist()))
        tokens = run.gather(self.learnt(batch).mask.sum(-1).tolist())
        batch.columns["mean_tokens"] = torch.full_like(batch["rewards"], sum(tokens) / len(tokens))
        advantages = (
            decoupled_advantages(everyone, [run.reward_weights.get(name, 1.0) for name in apart])
            if apart
            else group_advantages(everyone, self.scale_rewards)
        )
        return torch.tensor(run.shard(advantages.tolist())).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """The chosen loss per token, the KL and the entropy added, under the loss's average."""
        kind = LOSSES[self.loss_type]
        policy = self.policy(run, batch, entropy=True)
        counted = self.learnt(batch)
        mask = counted.mask
        terms = Terms(
            policy.logprobs,
            policy.logprobs - batch["logprobs"],
            per_token(batch["advantages"]),
            mask,
            *kind.bounds(self),
        )
        loss = kind.loss(terms).expand_as(mask)
        metrics = kind.clip_metrics(terms) | {"entropy": policy.entropy}
        if self.beta:
            kl = metrics["kl"] = kl_estimate(policy.logprobs, batch["reference"], self.kl_estimator)
            if self.kl_in == "loss":
                loss = loss + self.beta * kl
        if self.entropy_bonus:
            loss = loss - self.entropy_bonus * policy.entropy
        weights, count = weights_and_count(counted, kind.average, run.recipe.max_new_tokens)
        return replace(Loss.per_token(weights * loss, mask, metrics), count=count)

    def learnt(self, batch: Batch) -> Batch:
        """The batch with the mask of the tokens that are learnt from."""
        if not self.mask_truncated:
            return batch
        return replace(batch, mask=batch.mask & batch["ended"][:, None])

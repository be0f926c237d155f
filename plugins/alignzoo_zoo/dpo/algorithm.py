"""Direct Preference Optimization, Rafailov et al. 2023, and the losses that vary it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from alignzoo import Batch, Loss, Needs, Preferences, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo_zoo.dpo.family import LOSSES, SORTED, Pairs, check, parse
from alignzoo_zoo.dpo.losses import Divergence, wpo_weights


@dataclass(eq=False)
class DPO:
    """Direct Preference Optimization, from pairs and a reference (https://arxiv.org/abs/2305.18290)"""

    loss: Annotated[str, "one of 15 losses, or a weighted sum: sigmoid:1,sft:0.1"] = "sigmoid"
    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1
    label_smoothing: Annotated[float, "probability that a label is wrong", Ge(0), Lt(0.5)] = 0.0
    divergence: Annotated[Divergence, "f-DPO: what keeps the policy near the reference"] = (
        "reverse_kl"
    )
    divergence_alpha: Annotated[
        float, "of divergence alpha: reverse KL near 0, forward KL near 1", Gt(0), Lt(1)
    ] = 0.5
    discopop_tau: Annotated[float, "temperature of loss discopop", Gt(0), Le(1)] = 0.05
    ld_alpha: Annotated[
        float, "LD-DPO: weight of tokens past the shorter completion's length", Ge(0), Le(1)
    ] = 1.0
    wpo: Annotated[bool, "WPO: weight pairs by how likely the policy is to write them"] = False
    reference_every: Annotated[
        int, "TR-DPO: steps after which the reference moves to the policy (0: never)", Ge(0)
    ] = 0
    reference_mix: Annotated[
        float, "TR-DPO: share of the policy in the moved reference (1: all)", Gt(0), Le(1)
    ] = 1.0

    data = Preferences
    needs = Needs(reference=True)
    learning_rate = 6e-5
    progress_metric = "rewards/margins"

    weights: dict[str, float] = field(init=False)  # of the losses in the sum, by name

    def __post_init__(self) -> None:
        self.weights = parse(self.loss)
        mixed = self.reference_every > 0 and self.reference_mix < 1
        self.needs = Needs(reference=True, mixed_reference=mixed)
        check(self)

    @property
    def couples_rows(self) -> bool:
        return bool(self.weights.keys() & SORTED)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """The weighted sum of the losses, one value per pair."""
        policy = run.policy(batch, log_sum_p2=self.wpo)
        pairs = Pairs.of(batch, policy.logprobs, run.reference(batch).logprobs, self)
        terms = [weight * LOSSES[name](pairs, self) for name, weight in self.weights.items()]
        loss = torch.stack(terms).sum(0)
        if policy.log_sum_p2 is not None:
            chosen, rejected = batch.pairs(
                wpo_weights(policy.logprobs, policy.log_sum_p2, batch.mask)
            )
            loss = loss * chosen * rejected
        rewards = self.beta * pairs.chosen, self.beta * pairs.rejected
        logps = batch.pairs(batch.total(policy.logprobs))
        return Loss.per_sequence(loss, pair_metrics(rewards, logps))

    @hookimpl
    def alignzoo_step(self, run: Run, step: int) -> None:
        """TR-DPO's moving reference, Gorbatovski et al. 2024, https://arxiv.org/abs/2404.09656."""
        if self.reference_every and step % self.reference_every == 0:
            run.move_reference(self.reference_mix)

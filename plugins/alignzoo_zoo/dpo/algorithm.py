"""Direct Preference Optimization, Rafailov et al. 2023, and the losses that vary it."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field, replace
from typing import Annotated, Any, get_args

import torch
from annotated_types import Ge, Gt, Le, Lt

from alignzoo import BadInput, Batch, Loss, Needs, Preferences, Run, hookimpl
from alignzoo.errors import warn_renamed
from alignzoo.functional import pair_metrics
from alignzoo.options import Alias, join_options, refuse_unread
from alignzoo_zoo.dpo.loss_types import LOSS_TYPES, Pairs, default_beta, parse_loss_type
from alignzoo_zoo.dpo.losses import Divergence, wpo_weights


@dataclass(eq=False)
class DPO:
    """Direct Preference Optimization, from pairs and a reference (https://arxiv.org/abs/2305.18290)"""

    loss_type: Annotated[
        str, "one of 15 losses, or a weighted sum: sigmoid:1,sft:0.1", Alias("loss")
    ] = "sigmoid"
    beta: Annotated[
        float | None,
        "strength of the pull to the reference [default: the loss's own, sigmoid: 0.1]",
        Gt(0),
    ] = None
    label_smoothing: Annotated[float, "probability that a label is wrong", Ge(0), Lt(0.5)] = 0.0
    divergence: Annotated[
        Divergence, "f-DPO: divergence that keeps the policy near the reference"
    ] = "reverse_kl"
    divergence_alpha: Annotated[
        float, "alpha of --divergence alpha: near 0 reverse KL, near 1 forward KL", Gt(0), Lt(1)
    ] = 0.5
    discopop_tau: Annotated[float, "temperature of --loss-type discopop", Gt(0), Le(1)] = 0.05
    ld_alpha: Annotated[
        float, "LD-DPO: weight of tokens beyond the shorter completion's length", Ge(0), Le(1)
    ] = 1.0
    wpo: Annotated[bool, "WPO: weight pairs by their probability under the policy"] = False
    reference_every: Annotated[
        int, "TR-DPO: update the reference every N steps (0: never)", Ge(0)
    ] = 0
    reference_mix: Annotated[
        float, "TR-DPO: weight of the policy in the updated reference (1: a copy)", Gt(0), Le(1)
    ] = 1.0
    loss: InitVar[str | None] = None  # deprecated: `loss_type`

    data = Preferences
    needs = Needs(reference=True)
    learning_rate = 6e-5
    progress_metric = "rewards/margins"
    couples_rows = False

    weights: dict[str, float] = field(init=False)  # of the losses in the sum, by name

    check_with = ({"loss_type": "discopop"}, {"loss_type": "robust", "label_smoothing": 0.1})

    def __post_init__(self, loss: str | None) -> None:
        if loss is not None:
            warn_renamed("DPO(loss=)", "DPO(loss_type=)", stacklevel=4)
            self.loss_type = loss
        self.weights = parse_loss_type(self.loss_type)
        self.couples_rows = any(LOSS_TYPES[name].sorts for name in self.weights)
        mixed = self.reference_every > 0 and self.reference_mix < 1
        self.needs = Needs(reference=True, mixed_reference=mixed)
        if self.beta is None:
            self.beta = default_beta(
                self.weights, wpo=self.wpo, moves_reference=self.reference_every > 0
            )
        self.check()

    @property
    def neutral_loss(self) -> float | None:
        """Return the loss of a policy that is the reference, if it is known."""
        return math.log(2) if self.loss_type == "sigmoid" and not self.wpo else None

    @property
    def known_exceptions(self) -> dict[str, str]:
        """Return the laws that do not hold for a loss, and why."""
        if "discopop" not in self.weights:
            return {}
        return {"direction": "near the reference this loss rises with the margin, as in its paper"}

    def check(self) -> None:
        """Raise `BadInput` for options that the chosen losses do not read or do not allow."""
        losses = {name: LOSS_TYPES[name] for name in self.weights}
        apart = [name for name, loss_type in losses.items() if loss_type.rewards == "apart"]
        if self.divergence != "reverse_kl" and apart:
            takers = sorted(name for name, kind in LOSS_TYPES.items() if kind.rewards != "apart")
            raise BadInput(
                f"option --divergence: {', '.join(apart)} needs reverse_kl",
                hint=f"losses that allow others: {', '.join(takers)}",
            )
        reads = {name: loss_type.reads for name, loss_type in LOSS_TYPES.items()}
        refuse_unread(self, "loss_type", reads, losses)
        alpha_reads = dict.fromkeys(get_args(Divergence), ()) | {"alpha": ("divergence_alpha",)}
        refuse_unread(self, "divergence", alpha_reads)
        if "exo_pair" in losses and self.label_smoothing == 0.0:
            raise BadInput(
                "loss exo_pair is infinite without label smoothing",
                hint="add --label-smoothing 0.001, as in its paper",
            )
        if self.wpo and self.couples_rows:
            raise BadInput(
                f"option --wpo: {self.loss_type} sorts the completions of a batch, so there are no "
                "pairs to weight"
            )
        if self.reference_mix < 1 and not self.reference_every:
            raise BadInput(
                "option --reference-mix: the reference is never updated",
                hint="add --reference-every N",
            )

    def same_as(self, recipe: Any) -> str | None:
        """Return the options of `sigmoid` in place of `robust`, which is that without smoothing."""
        if "robust" not in self.weights or self.label_smoothing or "sigmoid" in self.weights:
            return None
        return join_options(
            "dpo", replace(self, loss_type=self.loss_type.replace("robust", "sigmoid"))
        )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Say so if the loss takes the same steps as another one at these settings."""
        if self.same_as(run.recipe) is not None:
            run.ui.note(
                "--loss-type robust takes the steps of sigmoid here: without --label-smoothing "
                "they are one loss"
            )

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the weighted sum of the losses, one value per pair."""
        policy = run.policy(batch, log_sum_p2=self.wpo)
        pairs = Pairs.of(
            batch,
            policy.logprobs,
            run.reference(batch).logprobs,
            divergence=self.divergence,
            divergence_alpha=self.divergence_alpha,
            ld_alpha=self.ld_alpha,
        )
        terms = [w * LOSS_TYPES[name].values(pairs, self) for name, w in self.weights.items()]
        loss = torch.stack(terms).sum(0)  # (B,)
        if policy.log_sum_p2 is not None:
            weights = wpo_weights(policy.logprobs, policy.log_sum_p2, batch.mask)  # (2B,)
            chosen, rejected = batch.pairs(weights)
            loss = loss * (chosen * rejected).clamp(max=1.0)  # as in its authors' code
        assert self.beta is not None  # __post_init__ chose it
        rewards = self.beta * pairs.chosen, self.beta * pairs.rejected
        logps = batch.pairs(batch.total(policy.logprobs))
        return Loss.per_sequence(loss, pair_metrics(rewards, logps))

    @hookimpl
    def alignzoo_step(self, run: Run, step: int) -> None:
        """Update TR-DPO's reference, Gorbatovski et al. 2024, https://arxiv.org/abs/2404.09656."""
        if self.reference_every and step % self.reference_every == 0:
            run.move_reference(self.reference_mix)

"""Every loss by its name, what it is made of, and which options go with which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo import BadInput, Batch
from alignzoo.functional import hinge_loss, ipo_loss, sigmoid_loss
from alignzoo_zoo.dpo import losses

if TYPE_CHECKING:
    from alignzoo_zoo.dpo.algorithm import DPO


@dataclass(frozen=True)
class Pairs:
    """What the losses are made of, one value per pair, `[B]`; log-probs and -ratios in nats."""

    chosen: Tensor  # log pi(y|x) - log pi_ref(y|x)
    rejected: Tensor
    margin: Tensor  # of the scores f'(pi / pi_ref), with reverse KL the log-ratios: w less l
    mean_margin: Tensor  # the same with each score divided by its completion's length
    policy_margin: Tensor  # log pi(y_w|x) - log pi(y_l|x)
    reference_margin: Tensor
    likelihood: Tensor  # log pi(y_w|x), no token discounted
    length: Tensor  # of the chosen completion, in tokens

    @classmethod
    def of(cls, batch: Batch, policy: Tensor, reference: Tensor, options: DPO) -> Pairs:
        """From the log-probs of every token under both, `[N, T]`."""
        lengths = batch.mask.sum(-1).clamp_min(1)
        shared = torch.minimum(*batch.pairs(lengths))[batch.group]
        weights = losses.tail_weights(batch.mask, shared, options.ld_alpha)
        logps, reference_logps = batch.total(weights * policy), batch.total(weights * reference)
        ratios = logps - reference_logps
        scores = losses.divergence_score(ratios, options.divergence, options.divergence_alpha)

        def margin(x: Tensor) -> Tensor:
            chosen, rejected = batch.pairs(x)
            return chosen - rejected

        return cls(
            *batch.pairs(ratios),
            margin=margin(scores),
            mean_margin=margin(scores / lengths),
            policy_margin=margin(logps),
            reference_margin=margin(reference_logps),
            likelihood=batch.pairs(batch.total(policy))[0],
            length=batch.pairs(lengths)[0],
        )


LOSSES: dict[str, Callable[[Pairs, DPO], Tensor]] = {
    "sigmoid": lambda p, o: sigmoid_loss(p.margin, o.beta, o.label_smoothing),
    "hinge": lambda p, o: hinge_loss(p.margin, o.beta),
    "ipo": lambda p, o: ipo_loss(p.mean_margin, o.beta),
    "exo_pair": lambda p, o: losses.exo_pair_loss(p.margin, o.beta, o.label_smoothing),
    "nca_pair": lambda p, o: losses.nca_pair_loss(p.chosen, p.rejected, o.beta),
    "robust": lambda p, o: losses.robust_loss(p.margin, o.beta, o.label_smoothing),
    "bco_pair": lambda p, o: losses.bco_pair_loss(p.chosen, p.rejected, o.beta),
    "sppo_hard": lambda p, o: losses.sppo_hard_loss(p.chosen, p.rejected, o.beta),
    "aot": lambda p, o: sigmoid_loss(
        losses.sorted_margin(p.policy_margin, p.reference_margin), o.beta, o.label_smoothing
    ),
    "aot_unpaired": lambda p, o: sigmoid_loss(
        losses.sorted_margin(p.chosen, p.rejected), o.beta, o.label_smoothing
    ),
    "apo_zero": lambda p, o: losses.apo_zero_loss(p.chosen, p.rejected, o.beta),
    "apo_down": lambda p, o: losses.apo_down_loss(p.chosen, p.rejected, o.beta),
    "discopop": lambda p, o: losses.discopop_loss(p.margin, o.beta, o.discopop_tau),
    "sft": lambda p, o: losses.sft_loss(p.likelihood, p.length),
    "sigmoid_norm": lambda p, o: sigmoid_loss(p.mean_margin, o.beta, o.label_smoothing),
}
SMOOTHED = {"sigmoid", "exo_pair", "robust", "aot", "aot_unpaired", "sigmoid_norm"}
SORTED = {"aot", "aot_unpaired"}
# f-DPO's reward holds a term of the prompt alone, which only a difference of two rewards cancels.
OF_DIFFERENCES = {
    "sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft", "sigmoid_norm"
}  # fmt: skip


def parse(text: str) -> dict[str, float]:
    """`"sigmoid:1,sft:0.1"` to weights by name; a weight that is not written is 1."""
    weights: dict[str, float] = {}
    for term in text.split(","):
        name, colon, number = (part.strip() for part in term.partition(":"))
        if name not in LOSSES:
            raise BadInput(
                f"option --loss: unknown loss {name!r}", hint=f"Known: {', '.join(sorted(LOSSES))}."
            )
        if name in weights:
            raise BadInput(f"option --loss: {name!r} is there twice")
        try:
            weights[name] = float(number) if colon else 1.0
        except ValueError:
            weights[name] = 0.0
        if not 0.0 < weights[name] < float("inf"):
            raise BadInput(
                f"option --loss: {number!r} is not a weight for {name!r}",
                hint="write positive numbers: sigmoid:1,sft:0.1",
            )
    return weights


def check(options: DPO) -> None:
    """Refuse options that the chosen losses cannot follow, or would silently ignore."""
    chosen = options.weights.keys()
    if "exo_pair" in chosen and options.label_smoothing == 0.0:
        raise BadInput(
            "loss exo_pair is infinite without label smoothing",
            hint="add --label-smoothing 0.001, as in its paper",
        )
    if options.label_smoothing > 0.0 and not chosen & SMOOTHED:
        raise BadInput(
            f"option --label-smoothing: it has no part in {options.loss}",
            hint=f"It has in: {', '.join(sorted(SMOOTHED))}.",
        )
    if options.divergence != "reverse_kl" and not chosen <= OF_DIFFERENCES:
        raise BadInput(
            f"option --divergence: {options.loss} needs reverse_kl",
            hint=f"Losses that take others: {', '.join(sorted(OF_DIFFERENCES))}.",
        )
    if options.wpo and chosen & SORTED:
        raise BadInput(
            f"option --wpo: {options.loss} sorts the completions of a batch, so that there are no "
            "pairs to weight"
        )

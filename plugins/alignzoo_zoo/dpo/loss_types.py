"""The losses of DPO by name, with the options that each of them reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alignzoo import BadInput, Batch
from alignzoo.functional import hinge_loss, ipo_loss, sigmoid_loss
from alignzoo.options import options_read
from alignzoo_zoo.dpo.losses import (
    Divergence,
    apo_down_loss,
    apo_zero_loss,
    bco_pair_loss,
    discopop_loss,
    divergence_score,
    exo_pair_loss,
    nca_pair_loss,
    robust_loss,
    sft_loss,
    sorted_margin,
    sppo_hard_loss,
    tail_weights,
)

BETA = 0.1  # appendix B of DPO's paper, https://arxiv.org/abs/2305.18290


@dataclass(frozen=True)
class Pairs:
    """The inputs of the losses, one value per pair, `[B]`; log-probs and log-ratios in nats."""

    chosen: Tensor  # log-ratio log pi(y_w|x) - log pi_ref(y_w|x)
    rejected: Tensor  # log-ratio of y_l
    margin: Tensor  # score of y_w minus score of y_l, `divergence_score` of the log-ratios
    mean_margin: Tensor  # the margin of the scores per token
    policy_margin: Tensor  # log pi(y_w|x) - log pi(y_l|x)
    reference_margin: Tensor  # log pi_ref(y_w|x) - log pi_ref(y_l|x)
    likelihood: Tensor  # log pi(y_w|x), every token with weight 1
    length: Tensor  # tokens of y_w

    @classmethod
    def of(
        cls,
        batch: Batch,
        policy: Tensor,
        reference: Tensor,
        *,
        divergence: Divergence,
        divergence_alpha: float,
        ld_alpha: float,
    ) -> Pairs:
        """Compute them from the log-probs of every token under policy and reference, `[N, T]`."""
        lengths = batch.mask.sum(-1).clamp_min(1)  # (N,)
        shared = torch.minimum(*batch.pairs(lengths))[batch.group]  # (N,), the pair's shorter one
        weights = tail_weights(batch.mask, shared, ld_alpha)  # (N, T)
        logps, reference_logps = batch.total(weights * policy), batch.total(weights * reference)
        ratios = logps - reference_logps  # (N,)
        scores = divergence_score(ratios, divergence, divergence_alpha)  # (N,)

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


@dataclass(frozen=True)
class LossType:
    """One loss of the family.

    Args:
        loss: the loss of each pair, `[B]`, from `Pairs`; its keyword-only arguments are the
            options that it reads.
        rewards: how it uses the implicit rewards: the "margin" of a pair, both rewards "apart",
            or "none". f-DPO's reward has a term that depends on the prompt alone and cancels in
            a margin only, so losses that use them apart need the reverse KL.
        sorts: True if it sorts the pairs of a batch, so that they depend on each other.
        default_beta: its authors' strength of the pull; 0.1 also where they give none.
    """

    loss: Callable[..., Tensor]
    rewards: Literal["margin", "apart", "none"] = "margin"
    sorts: bool = False
    default_beta: float = BETA

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the options that the loss reads; `beta` also scales the logged rewards."""
        own = ("beta", *options_read(self.loss))
        return (*own, "divergence") if self.rewards == "margin" else own

    def values(self, pairs: Pairs, options: Any) -> Tensor:
        """Compute the loss of each pair, `[B]`, with those of the options that it reads."""
        read = {name: getattr(options, name) for name in options_read(self.loss)}
        loss: Tensor = self.loss(pairs, **read)
        return loss


LOSS_TYPES: dict[str, LossType] = {
    "sigmoid": LossType(
        lambda p, *, beta, label_smoothing: sigmoid_loss(p.margin, beta, label_smoothing)
    ),
    "hinge": LossType(
        lambda p, *, beta: hinge_loss(p.margin, beta),
        default_beta=0.05,  # gamma of RSO, https://arxiv.org/abs/2309.06657
    ),
    "ipo": LossType(
        lambda p, *, beta: ipo_loss(p.mean_margin, beta),
        default_beta=1.0,  # none is published; it asks for half a nat per token
    ),
    "exo_pair": LossType(
        lambda p, *, beta, label_smoothing: exo_pair_loss(p.margin, beta, label_smoothing)
    ),
    "nca_pair": LossType(
        lambda p, *, beta: nca_pair_loss(p.chosen, p.rejected, beta),
        "apart",
        default_beta=0.01,  # alpha, section C
    ),
    "robust": LossType(
        lambda p, *, beta, label_smoothing: robust_loss(p.margin, beta, label_smoothing)
    ),
    "bco_pair": LossType(
        lambda p, *, beta: bco_pair_loss(p.chosen, p.rejected, beta),
        "apart",
        default_beta=0.01,  # section C
    ),
    "sppo_hard": LossType(
        lambda p, *, beta: sppo_hard_loss(p.chosen, p.rejected, beta),
        "apart",
        default_beta=0.001,  # 1 / eta, section 5, and in the authors' code
    ),
    "aot": LossType(
        lambda p, *, beta, label_smoothing: sigmoid_loss(
            sorted_margin(p.policy_margin, p.reference_margin), beta, label_smoothing
        ),
        "apart",
        sorts=True,
        default_beta=0.01,  # figure 2
    ),
    "aot_unpaired": LossType(
        lambda p, *, beta, label_smoothing: sigmoid_loss(
            sorted_margin(p.chosen, p.rejected), beta, label_smoothing
        ),
        "apart",
        sorts=True,
        default_beta=0.01,  # figure 2
    ),
    "apo_zero": LossType(lambda p, *, beta: apo_zero_loss(p.chosen, p.rejected, beta), "apart"),
    "apo_down": LossType(lambda p, *, beta: apo_down_loss(p.chosen, p.rejected, beta), "apart"),
    "discopop": LossType(
        lambda p, *, beta, discopop_tau: discopop_loss(p.margin, beta, discopop_tau),
        default_beta=0.05,  # section B.1
    ),
    "sft": LossType(lambda p: sft_loss(p.likelihood, p.length), "none"),
    "sigmoid_norm": LossType(
        lambda p, *, beta, label_smoothing: sigmoid_loss(p.mean_margin, beta, label_smoothing),
        default_beta=5.0,  # Tulu 3, https://arxiv.org/abs/2411.15124, and in the authors' scripts
    ),
}


def default_beta(weights: dict[str, float], *, wpo: bool, moves_reference: bool) -> float:
    """Return the default of `beta` for a weighted sum of losses: that of the first one.

    WPO and TR-DPO, which vary the plain loss, have values of their own in their papers.
    """
    first = next(iter(weights))
    if first == "sigmoid" and wpo:
        return 0.01  # section 4, and in the authors' code
    if first == "sigmoid" and moves_reference:
        return 0.05  # table 1 of https://arxiv.org/abs/2404.09656
    return LOSS_TYPES[first].default_beta


def parse_loss_type(text: str) -> dict[str, float]:
    """Parse `"sigmoid:1,sft:0.1"` into weights by name; a weight that is left out is 1.

    Raise `BadInput` for an unknown name, a name that is listed twice, and a weight that is not a
    positive number.
    """
    weights: dict[str, float] = {}
    for term in text.split(","):
        name, colon, number = (part.strip() for part in term.partition(":"))
        if name not in LOSS_TYPES:
            raise BadInput(
                f"option --loss-type: unknown loss {name!r}",
                hint=f"Known: {', '.join(sorted(LOSS_TYPES))}.",
            )
        if name in weights:
            raise BadInput(f"option --loss-type: {name!r} is listed twice")
        try:
            weights[name] = float(number) if colon else 1.0
        except ValueError:
            weights[name] = 0.0
        if not 0.0 < weights[name] < float("inf"):
            raise BadInput(
                f"option --loss-type: {number!r} is not a weight for {name!r}",
                hint="write positive numbers: sigmoid:1,sft:0.1",
            )
    return weights

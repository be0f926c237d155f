"""Every loss by its name: what it is made of, how its tokens are averaged, where it is clipped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from alignzoo import BadInput, Batch
from alignzoo.functional import clip_metrics, clipped_surrogate, importance_ratio
from alignzoo_zoo.grpo import losses

if TYPE_CHECKING:
    from alignzoo_zoo.grpo.algorithm import GRPO

Average = Literal["completions", "step", "round", "longest", "sums"]

SAPO_TEMPERATURES = (1.0, 1.05)
VESPO_POSITIVE, VESPO_NEGATIVE = (2.0, 3.0), (3.0, 2.0)


@dataclass(frozen=True)
class Terms:
    """What the losses are made of; shapes as in `losses`. `lower`, `upper`: bounds of the ratio."""

    logprobs: Tensor
    log_ratio: Tensor
    advantages: Tensor
    mask: Tensor
    lower: float
    upper: float

    @property
    def ratio(self) -> Tensor:
        return importance_ratio(self.log_ratio)

    @property
    def sequence_ratio(self) -> Tensor:
        return losses.sequence_ratio(self.log_ratio, self.mask)


@dataclass(frozen=True)
class Kind:
    """A loss: its value per token, the average over tokens, and its epsilons (low, high).

    `clips` is the ratio whose clipped share is logged. `log_bounds`: the epsilons bound the
    logarithm of the ratio.
    """

    loss: Callable[[Terms], Tensor]
    average: Average
    epsilons: tuple[float, float] | None = None
    clips: Callable[[Terms], Tensor] | None = None
    log_bounds: bool = False

    def bounds(self, options: GRPO) -> tuple[float, float]:
        """The ratio's lower and upper bound under the options, or under the loss's own epsilons."""
        if self.epsilons is None:
            return 0.0, math.inf
        low = self.epsilons[0] if options.epsilon is None else options.epsilon
        high = self.epsilons[1] if options.epsilon is None else options.epsilon
        high = high if options.epsilon_high is None else options.epsilon_high
        return (math.exp(-low), math.exp(high)) if self.log_bounds else (1 - low, 1 + high)

    def clip_metrics(self, terms: Terms) -> dict[str, Tensor]:
        if self.clips is None:
            return {}
        ratio = self.clips(terms)
        # Of a completion's one ratio it is asked once; all its tokens have credit of one sign.
        advantages = terms.advantages[:, : ratio.shape[1]]
        return clip_metrics(ratio, advantages, terms.lower, terms.upper)


def by_token(t: Terms) -> Tensor:
    return clipped_surrogate(t.ratio, t.advantages, t.lower, t.upper)


def by_sequence(t: Terms) -> Tensor:
    return clipped_surrogate(t.sequence_ratio, t.advantages, t.lower, t.upper)


def token_ratio(t: Terms) -> Tensor:
    return t.ratio


def whole_ratio(t: Terms) -> Tensor:
    return t.sequence_ratio


PPO, GSPO = (0.2, 0.2), (3e-4, 4e-4)
LOSSES: dict[str, Kind] = {
    "grpo": Kind(by_token, "completions", PPO, token_ratio),
    "dr_grpo": Kind(by_token, "longest", PPO, token_ratio),
    "dapo": Kind(by_token, "round", (0.2, 0.28), token_ratio),
    "bnpo": Kind(by_token, "step", PPO, token_ratio),
    "gspo": Kind(by_sequence, "completions", GSPO, whole_ratio),
    "luspo": Kind(by_sequence, "sums", GSPO, whole_ratio),
    "cispo": Kind(
        lambda t: losses.cispo_loss(t.logprobs, t.ratio, t.advantages, t.upper),
        "round",
        (1.0, 4.0),  # a lower bound of 0 is none
        token_ratio,
    ),
    "sapo": Kind(
        lambda t: losses.sapo_loss(t.ratio, t.advantages, *SAPO_TEMPERATURES), "completions"
    ),
    "gmpo": Kind(
        lambda t: losses.gmpo_loss(t.log_ratio, t.advantages, t.mask, t.lower, t.upper),
        "completions",
        (0.4, 0.4),
        token_ratio,
        log_bounds=True,
    ),
    "vespo": Kind(
        lambda t: losses.vespo_loss(
            t.logprobs, t.log_ratio, t.advantages, t.mask, VESPO_POSITIVE, VESPO_NEGATIVE
        ),
        "round",
    ),
}


def weights_and_count(batch: Batch, average: Average, longest: int) -> tuple[Tensor, Tensor]:
    """The weight of each token `[N, 1]` and the count, whose quotient of sums is the average.

        completions   the mean over completions of the mean over their tokens
        step          the mean over the tokens of the optimizer step
        round         the same with the tokens that a step of this round has on average
        longest       the mean over completions of the sum over tokens divided by `longest`
        sums          the mean over completions of the sum over tokens

    Counts add up over micro-batches and processes, so that the average is the whole step's. A
    completion without a token that counts is counted as a completion.
    """
    lengths = batch.mask.sum(-1, keepdim=True)
    ones = torch.ones_like(lengths, dtype=torch.float32)
    completions = torch.tensor(len(lengths), device=lengths.device)
    if average == "completions":
        return ones / lengths.clamp(min=1), completions
    if average == "step":
        return ones, lengths.sum()
    if average == "round":
        return ones, batch["mean_tokens"].sum()
    return ones, completions * (longest if average == "longest" else 1)


def check(options: GRPO) -> None:
    """Refuse options that the chosen loss cannot follow, or would silently ignore."""
    name, kind = options.loss_type, LOSSES[options.loss_type]
    for flag, value in (("epsilon", options.epsilon), ("epsilon-high", options.epsilon_high)):
        if value is not None and (kind.epsilons is None or (name, flag) == ("cispo", "epsilon")):
            raise BadInput(
                f"option --{flag}: it has no part in {name}",
                hint="cispo is bounded above alone, by --epsilon-high" if kind.epsilons else None,
            )
    if options.kl_in == "loss" and options.kl_estimator == "k1":
        raise BadInput(
            "option --kl-estimator k1: in the loss its gradient is zero in the mean, so that it "
            "would pull nowhere",
            hint="take k2 or k3, or --kl-in reward",
        )
    if options.normalize_rewards == "before":
        if options.scale_rewards != "group":
            raise BadInput(
                "option --scale-rewards: rewards that are normalized before their sum are scaled "
                "by their groups"
            )
        if options.beta and options.kl_in == "reward":
            raise BadInput(
                "option --kl-in reward: the penalty is part of the sum of the rewards, which "
                "--normalize-rewards before does not take first"
            )

"""The losses of the GRPO family by name: value per token, average, clipping range, options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignzoo import Batch
from alignzoo.functional import clip_metrics, clipped_surrogate, importance_ratio
from alignzoo_zoo.grpo import losses
from alignzoo_zoo.grpo.advantages import Scale

Average = Literal["completions", "step", "round", "longest", "sums"]

SAPO_TEMPERATURES = (1.0, 1.05)
VESPO_POSITIVE, VESPO_NEGATIVE = (2.0, 3.0), (3.0, 2.0)


@dataclass(frozen=True)
class Terms:
    """Inputs of the losses, in the shapes of `losses`.

    `lower` and `upper` bound the ratio or the divergence. `chosen` are the tokens that Clip-Cov or
    KL-Cov treats apart, bool, `[N, T]`; none for other losses. `penalty` is that of KL-Cov.
    """

    logprobs: Tensor
    log_ratio: Tensor
    advantages: Tensor
    mask: Tensor
    lower: float
    upper: float
    drawn: Tensor
    chosen: Tensor
    penalty: float

    @property
    def ratio(self) -> Tensor:
        """Compute the ratio pi / pi_old of each token, `[N, T]`."""
        return importance_ratio(self.log_ratio)

    @property
    def sequence_ratio(self) -> Tensor:
        """Compute GSPO's ratio of each completion, `[N, 1]`."""
        return losses.sequence_ratio(self.log_ratio, self.mask)

    @property
    def signed_tv(self) -> Tensor:
        """Compute DPPO's total variation from the sampler, with its sign, `[N, T]`."""
        return losses.signed_tv(self.logprobs, self.drawn)

    @property
    def signed_kl(self) -> Tensor:
        """Compute DPPO's KL from the sampler, with its sign, `[N, T]`."""
        return losses.signed_kl(self.logprobs, self.drawn)


@dataclass(frozen=True)
class LossType:
    """A loss: its value per token, its average over tokens, and how it clips.

    `epsilons` are its default clip ranges (down, up), None if it does not clip. They are distances
    of the ratio from 1, of the log-ratio from 0, or of a divergence from 0. `clips` names what they
    bound, whose clipped fraction is logged. `chooses` is the default fraction of tokens that the
    loss treats apart, None if it treats all alike; `drops_chosen` is True if those have no
    gradient. `reads` names the options that not every loss reads, and `scale` is the default of
    `scale_rewards`.
    """

    loss: Callable[[Terms], Tensor]
    average: Average
    epsilons: tuple[float, float] | None = None
    clips: Literal["ratio", "sequence_ratio", "signed_tv", "signed_kl"] | None = None
    bounded: Literal["ratio", "log_ratio", "divergence"] = "ratio"
    chooses: float | None = None
    drops_chosen: bool = False
    reads: tuple[str, ...] = ()
    scale: Scale = "group"

    def bounds(self, epsilon: float | None, epsilon_high: float | None) -> tuple[float, float]:
        """Return the bounds of what the loss bounds, from the options or else its defaults.

        `epsilon` alone sets both clip ranges.
        """
        if self.epsilons is None:
            return 0.0, math.inf
        low = self.epsilons[0] if epsilon is None else epsilon
        high = self.epsilons[1] if epsilon is None else epsilon
        high = high if epsilon_high is None else epsilon_high
        if self.bounded == "divergence":
            return -low, high
        return (1 - low, 1 + high) if self.bounded == "ratio" else (math.exp(-low), math.exp(high))

    def clip_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """Return which tokens, `[N, T]`, or completions, `[N, 1]`, are clipped, by side."""
        if self.clips is None:
            return {}
        ratio: Tensor = getattr(terms, self.clips)
        # A sequence ratio is counted once per completion: its tokens have advantages of one sign.
        advantages = terms.advantages[:, : ratio.shape[1]]
        return clip_metrics(ratio, advantages, terms.lower, terms.upper)


def token_surrogate(t: Terms) -> Tensor:
    """Compute PPO's clipped loss with the ratio of each token, `[N, T]`."""
    return clipped_surrogate(t.ratio, t.advantages, t.lower, t.upper)


def sequence_surrogate(t: Terms) -> Tensor:
    """Compute PPO's clipped loss with one ratio per completion, `[N, 1]`."""
    return clipped_surrogate(t.sequence_ratio, t.advantages, t.lower, t.upper)


PPO, GSPO = (0.2, 0.2), (3e-4, 4e-4)
LUSPO = (2e-3, 2.5e-3)  # section 5.1 of https://arxiv.org/abs/2602.05261
BOTH = ("epsilon", "epsilon_high")


def dppo(divergence: Literal["signed_tv", "signed_kl"], threshold: float) -> LossType:
    """Return DPPO's loss for a divergence, in the average of Dr. GRPO, as its authors run it."""
    return LossType(
        lambda t: losses.dppo_loss(t.ratio, getattr(t, divergence), t.advantages, t.lower, t.upper),
        "longest",
        (threshold, threshold),
        divergence,
        bounded="divergence",
        reads=BOTH,
        scale="none",
    )


LOSS_TYPES: dict[str, LossType] = {
    "grpo": LossType(token_surrogate, "completions", PPO, "ratio", reads=BOTH),
    # Its authors remove both biases of GRPO: the length in the average, and the deviation.
    "dr_grpo": LossType(token_surrogate, "longest", PPO, "ratio", reads=BOTH, scale="none"),
    "dapo": LossType(token_surrogate, "round", (0.2, 0.28), "ratio", reads=BOTH),
    "bnpo": LossType(token_surrogate, "step", PPO, "ratio", reads=BOTH),
    "gspo": LossType(sequence_surrogate, "completions", GSPO, "sequence_ratio", reads=BOTH),
    "luspo": LossType(sequence_surrogate, "sums", LUSPO, "sequence_ratio", reads=BOTH),
    "cispo": LossType(
        lambda t: losses.cispo_loss(t.logprobs, t.ratio, t.advantages, t.upper),
        "round",
        (1.0, 4.0),  # a lower bound of 0 never clips
        "ratio",
        reads=("epsilon_high",),
    ),
    "sapo": LossType(
        lambda t: losses.sapo_loss(t.ratio, t.advantages, *SAPO_TEMPERATURES), "completions"
    ),
    "gmpo": LossType(
        lambda t: losses.gmpo_loss(t.log_ratio, t.advantages, t.mask, t.lower, t.upper),
        "completions",
        (0.4, 0.4),
        "ratio",
        bounded="log_ratio",
        reads=BOTH,
    ),
    "vespo": LossType(
        lambda t: losses.vespo_loss(
            t.logprobs, t.log_ratio, t.advantages, t.mask, VESPO_POSITIVE, VESPO_NEGATIVE
        ),
        "round",
    ),
    "dppo_tv": dppo("signed_tv", 0.15),
    "dppo_kl": dppo("signed_kl", 0.05),
    "clip_cov": LossType(
        lambda t: torch.where(t.chosen, 0.0, token_surrogate(t)),
        "round",
        (1.0, 1.0),  # as its authors set it: covariances are to do what the clip does
        "ratio",
        chooses=2e-4,
        drops_chosen=True,
        reads=(*BOTH, "cov_fraction"),
    ),
    "kl_cov": LossType(
        lambda t: losses.kl_cov_loss(t.log_ratio, t.advantages, t.chosen, t.penalty),
        "round",
        chooses=2e-3,
        reads=("cov_fraction", "cov_penalty"),
    ),
}


def same_at_ratio_one(name: str) -> str | None:
    """Return an earlier loss of the table with the gradient of this one while every ratio is 1.

    At r = 1 the gradient of every loss is that of -A log pi(y_t), or of its mean over the tokens
    for all tokens of a completion, so losses differ by their average alone, and by the tokens that
    they leave out. A round of one step has
    the tokens of its step. This needs the trainer's own log-probs: the weights of another sampler's
    tokens apply to each token in one loss, and to their mean in another.
    """

    def kind(loss_type: LossType) -> tuple[Average, Scale, bool]:
        average = "round" if loss_type.average == "step" else loss_type.average
        return average, loss_type.scale, loss_type.drops_chosen

    first = next(n for n, other in LOSS_TYPES.items() if kind(other) == kind(LOSS_TYPES[name]))
    return first if first != name else None


def token_weights(batch: Batch, average: Average, longest: int) -> tuple[Tensor, Tensor]:
    """Return the weight of each token, `[N, 1]`, and the count that the weighted sum is divided by.

        completions   the mean over completions of the mean over their tokens
        step          the mean over the tokens of the optimizer step
        round         as step, but with the mean number of tokens per step of this round
        longest       the mean over completions of the sum over tokens divided by `longest`
        sums          the mean over completions of the sum over tokens

    Counts add up over micro-batches and processes, so the average is that of the whole step. A
    completion without any token in the mask counts as a completion.
    """
    lengths = batch.mask.sum(-1, keepdim=True)  # (N, 1)
    ones = torch.ones_like(lengths, dtype=torch.float32)
    completions = torch.tensor(len(lengths), device=lengths.device)
    if average == "completions":
        return ones / lengths.clamp(min=1), completions
    if average == "step":
        return ones, lengths.sum()
    if average == "round":
        return ones, batch["mean_tokens"].sum()
    return ones, completions * (longest if average == "longest" else 1)

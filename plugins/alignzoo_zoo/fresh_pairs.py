"""The base of algorithms that compare fresh completions of a prompt by their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import Batch, OnPolicy, Run, hookimpl
from alignzoo.functional import best_and_worst, ipo_loss, sigmoid_loss
from alignzoo.rollout import Completion
from alignzoo_zoo.pairs import pair_loss

LOSSES = {"sigmoid": sigmoid_loss, "ipo": ipo_loss}


@dataclass(eq=False)
class FreshPairs(OnPolicy):
    """Options of an algorithm that learns which of two fresh completions is better."""

    missing_eos_penalty: Annotated[
        float, "subtracted from the reward of a completion without EOS", Ge(0)
    ] = 0.0

    advantages_are_weights = False  # advantages mark the winner and the loser

    def penalised_rewards(self, batch: Batch) -> Tensor:
        """Return the rewards to compare, `[B, G]`, with the penalty subtracted."""
        cut_off = ~batch["ended"].bool()
        return batch.groups(batch["rewards"] - self.missing_eos_penalty * cut_off)


@dataclass(eq=False)
class RankedPairs(FreshPairs):
    """Learn by DPO's loss from the best and the worst completion of each prompt."""

    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1
    loss_type: Annotated[Literal["sigmoid", "ipo"], "DPO's loss, or IPO's"] = "sigmoid"

    def keep_pairs(self, run: Run, batch: Batch) -> Batch:
        """Keep the completions that are in a pair, and add their reference log-probs."""
        batch = batch.keep(batch["advantages"] != 0)
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return 1 for the chosen completion, -1 for the rejected one, 0 for the others, `[N]`."""
        rewards = self.penalised_rewards(batch)  # (B, G)
        signs = best_and_worst(rewards)
        chosen, rejected = (rewards.where(signs == sign, 0.0).nansum(-1) for sign in (1, -1))
        tied = (signs == 0).all(-1)
        run.log_mean(
            {
                "frac_pairs_tied": tied.float(),
                "objective/scores_margin": (chosen - rejected).masked_fill(tied, torch.nan),
            },
        )
        return signs.flatten()

    def preference_loss(self, batch: Batch, logprobs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of each pair, `[B]`, and the metrics of the pairs."""
        first_chosen = batch.pairs(batch["advantages"])[0] > 0
        return pair_loss(
            batch, logprobs, batch["reference"], LOSSES[self.loss_type], self.beta, first_chosen
        )


def without_logprobs(groups: Sequence[Sequence[Completion]]) -> list[list[Completion]]:
    """Return completions of another model than the policy with unknown log-probs (NaN).

    The log-probs of a batch are compared with the policy's, to see whether its sampler has the
    same weights; another model's are not.
    """
    return [[replace(one, logprobs=[math.nan] * len(one.tokens)) for one in g] for g in groups]


def policy_metrics(
    logprobs: Tensor, reference: Tensor, entropy: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Return KL and entropy of completions that the policy sampled, from tensors `[n, T]`.

    They are per token, and per completion under TRL's names, `objective/...`.
    """
    log_ratio = logprobs - reference
    return {
        "kl": log_ratio[mask],
        "entropy": entropy[mask],
        "objective/kl": (log_ratio * mask).sum(-1),
        "objective/entropy": -(logprobs * mask).sum(-1),
    }

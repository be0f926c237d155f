"""Iterative Reasoning Preference Optimization, Pang et al. 2024."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from alignzoo import Batch, Example, Loss, Needs, OnPolicy, RoundPrompts, Run, collate, hookimpl
from alignzoo.rollout import Completion, complete, log_completions, with_rewards
from alignzoo_zoo.irpo.losses import irpo_loss, pair_up
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs
from alignzoo_zoo.pairs import pair_loss


@dataclass(eq=False)
class IRPO(OnPolicy):
    """Iterative reasoning DPO: own correct chains of thought against own wrong ones (https://arxiv.org/abs/2404.19733)"""

    round_prompts: RoundPrompts = 512
    pairs: Annotated[int, "pairs of a correct and a wrong completion per prompt", Ge(1)] = 4
    threshold: Annotated[float, "smallest reward of a correct completion", Ge(-1e18), Le(1e18)] = (
        0.5
    )
    beta: Annotated[float, "strength of the pull to the policy that began the round", Gt(0)] = 0.1
    nll_weight: Annotated[
        float, "weight of the negative log-likelihood of the correct completion", Ge(0)
    ] = 1.0

    needs = Needs()  # the policy at the start of the round is the reference
    advantages_are_weights = False  # a reward only tells correct from wrong
    known_exceptions = {
        "temperature": "pairs are learned from as dpo does, policy and opponent at temperature 1"
    }

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Draw completions, and pair correct ones with wrong ones of the same prompt."""
        groups = complete(run, rows, self.group_size)
        drawn = with_rewards(run, rows, groups)
        log_completions(run, drawn)
        rewards = drawn.groups(drawn["rewards"]).tolist()
        indices = [pair_up(group, self.threshold, self.pairs) for group in rewards]
        run.log_mean({"frac_pairs_tied": torch.tensor([float(not found) for found in indices])})
        batch = collate(
            [
                pair_of(row, [group[n] for n in pair], [scores[n] for n in pair])
                for row, group, scores, found in zip(rows, groups, rewards, indices, strict=True)
                for pair in found
            ]
        )
        batch.columns[OPPONENT] = opponent_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return DPO's loss plus the likelihood of the correct completion, one value per pair."""
        logprobs = run.policy(batch).logprobs
        chosen_mean, _ = batch.pairs(batch.mean(logprobs))
        loss = partial(irpo_loss, chosen_mean=chosen_mean, nll_weight=self.nll_weight)
        losses, metrics = pair_loss(batch, logprobs, batch[OPPONENT], loss, self.beta)
        return Loss.per_sequence(losses, metrics | {"nll_loss": -chosen_mean})


def pair_of(row: Example, pair: Sequence[Completion], rewards: Sequence[float]) -> Example:
    """Return a row with a correct and a wrong completion, and their rewards."""
    return replace(
        row,
        completions=[one.tokens for one in pair],
        masks=[one.written for one in pair],
        columns={"rewards": list(rewards), "ended": [one.ended for one in pair]},
    )

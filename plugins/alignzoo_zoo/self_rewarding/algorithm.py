"""Self-Rewarding Language Models, Yuan et al. 2024."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alignzoo import (
    BadInput,
    Batch,
    Example,
    Loss,
    Needs,
    OnPolicy,
    RoundPrompts,
    Run,
    collate,
    hookimpl,
)
from alignzoo.functional import best_and_worst, sigmoid_loss
from alignzoo.rollout import batch_completions, complete, log_completions
from alignzoo_judges import RATING_QUESTION, Judge, rate, resolve_judge
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs
from alignzoo_zoo.pairs import pair_loss


@dataclass(eq=False)
class SelfRewarding(OnPolicy):
    """Self-rewarding: DPO on completions that the policy rates itself (https://arxiv.org/abs/2401.10020)"""

    group_size: Annotated[
        int, "completions per prompt; best and worst are the pair", Ge(2), Le(4096)
    ] = 4
    round_prompts: RoundPrompts = 512
    beta: Annotated[float, "strength of the pull to the policy that began the round", Gt(0)] = 0.1
    question: Annotated[str, "question to the policy about each completion"] = RATING_QUESTION

    needs = Needs()  # the policy at the start of the round is the reference
    # dpo's rate: at 1e-5 two passes hardly moved the policy, at 3e-4 the KL was 29.
    learning_rate = 6e-5
    progress_metric = "rewards/accuracies"
    neutral_loss = math.log(2)  # of a policy that is its opponent

    known_exceptions = {
        "temperature": "pairs are learned from as dpo does, policy and opponent at temperature 1"
    }

    judge: Judge | None = field(default=None, init=False)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse greedy sampling, and a reward in addition to the policy's own ratings."""
        super().alignzoo_check(recipe=recipe)
        if recipe.reward:
            raise BadInput(
                "option --reward: self-rewarding is its own judge",
                hint="online-dpo trains on pairs ranked by a reward",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Make the policy the judge."""
        self.judge = resolve_judge("policy", run=run)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Pair the best with the worst completion of each prompt, by the policy's ratings."""
        groups = complete(run, rows, self.group_size)
        batch = batch_completions(rows, groups)
        ratings = batch.columns["rewards"] = self.ratings(run, batch)
        log_completions(run, batch)
        signs = best_and_worst(batch.groups(ratings))  # (B, G)
        best, worst = signs.argmax(-1).tolist(), signs.argmin(-1).tolist()
        pairs = [
            replace(
                row,
                completions=[group[b].tokens, group[w].tokens],
                masks=[group[b].written, group[w].written],
            )
            for row, group, b, w in zip(rows, groups, best, worst, strict=True)
        ]
        differ = [chosen != rejected for chosen, rejected in (p.completions for p in pairs)]
        run.log_mean(
            {
                "frac_unrated": ratings.isnan().float(),
                "frac_pairs_tied": 1.0 - torch.tensor(differ, dtype=torch.float),
            }
        )
        batch = collate(list(compress(pairs, differ)))
        batch.columns[OPPONENT] = opponent_logprobs(run, batch)
        return batch

    def ratings(self, run: Run, batch: Batch) -> Tensor:
        """Let the policy rate each completion: `[N]` in [-1, 1]; NaN if it gave no rating."""
        assert self.judge is not None  # alignzoo_start made it
        answered = list(zip(batch.answered(), run.texts(batch), strict=True))
        return torch.tensor(rate(self.judge, answered, self.question))

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return DPO's loss, one value per pair."""
        logprobs = run.policy(batch).logprobs
        return Loss.per_sequence(
            *pair_loss(batch, logprobs, batch[OPPONENT], sigmoid_loss, self.beta)
        )

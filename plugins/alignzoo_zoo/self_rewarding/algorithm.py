"""Self-Rewarding Language Models, Yuan et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, Needs, OnPolicy, Run, collate, hookimpl
from alignzoo.functional import best_and_worst, sigmoid_loss
from alignzoo.rollout import batch_completions, complete, log_completions
from alignzoo_judges import RATING_QUESTION, Judge, rate, resolve_judge
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs, pair_loss


@dataclass(eq=False)
class SelfRewarding(OnPolicy):
    """Self-rewarding: DPO on one's own completions, rated by oneself (https://arxiv.org/abs/2401.10020)"""

    group_size: Annotated[int, "completions per prompt: best and worst are the pair", Ge(2)] = 4
    iterations: Annotated[int, "passes over the pairs of a round", Ge(1)] = 1
    round_prompts: Annotated[
        int, "prompts per round, in steps of --batch-size (0: one step's)", Ge(0)
    ] = 512
    beta: Annotated[float, "strength of the pull to the policy that began the round", Gt(0)] = 0.1
    question: Annotated[str, "what the policy is asked of each completion"] = RATING_QUESTION

    needs = Needs()  # the round's first policy is the reference
    learning_rate = (
        6e-5  # as in dpo; at 1e-5 two passes hardly moved, at 3e-4 they led to a KL of 29
    )
    progress_metric = "rewards/accuracies"

    judge: Judge | None = field(default=None, init=False)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        super().alignzoo_check(recipe=recipe)
        if recipe.reward:
            raise BadInput(
                "option --reward: self-rewarding is its own judge",
                hint="online-dpo learns from pairs that a reward has ranked",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        self.judge = resolve_judge("policy", run=run)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """The best and the worst of the policy's completions of each prompt, by its own ratings."""
        groups = complete(run, rows, self.group_size)
        batch = batch_completions(rows, groups)
        ratings = batch.columns["rewards"] = self.ratings(run, batch)
        log_completions(run, batch)
        signs = best_and_worst(batch.groups(ratings))
        best, worst = signs.argmax(-1).tolist(), signs.argmin(-1).tolist()
        pairs = [
            replace(row, completions=[group[b].tokens, group[w].tokens])
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
        """The policy's own of each completion, in [-1, 1], `[N]`; NaN where it gave none."""
        assert self.judge is not None  # alignzoo_start made it
        answered = list(zip(batch.answered(), run.texts(batch), strict=True))
        return torch.tensor(rate(self.judge, answered, self.question))

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """DPO's, one value per pair."""
        return pair_loss(run, batch, sigmoid_loss, self.beta)

"""The best of n completions, by the run's rewards: a baseline that trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from alignzoo import BadInput, Example, Prompts, Run, hookimpl
from alignzoo.rollout import Completion, Sampling, complete, with_rewards
from alignzoo_zoo.best_of_n.selection import best, kl_bound


@dataclass(eq=False)
class BestOfN:
    """The best of n completions by the rewards, without any training (https://arxiv.org/abs/2009.01325)"""

    n: Annotated[int, "completions per prompt, of which the best is the answer", Ge(1)] = 8

    data = Prompts
    trains = False
    defaults = {"steps": 0, "adapter": "none"}

    def __post_init__(self) -> None:
        self.rewards: Tensor | None = None  # [B, n], of the last evaluation

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if recipe.temperature == 0 and self.n > 1:
            raise BadInput(
                "option --temperature: greedy completions of one prompt are all the same"
            )
        if not recipe.task and not recipe.reward:
            raise BadInput("option --reward: nothing says which completion is the best")

    @hookimpl
    def alignzoo_answer(self, run: Run, rows: Sequence[Example]) -> list[Completion]:
        """Of n completions of each prompt the one with the highest reward."""
        groups = complete(run, rows, self.n, stream="answer")
        batch = with_rewards(run, rows, groups)
        self.rewards = batch.groups(batch["rewards"])
        places = best(self.rewards).tolist()
        return [group[place] for group, place in zip(groups, places, strict=True)]

    @hookimpl
    def alignzoo_evaluate(self, run: Run) -> dict[str, float | list[float]]:
        """The bound of the KL, for what is measured of a chosen completion is the model's own; and
        the rewards, of the answers and of all that was drawn."""
        if self.rewards is None:  # before
            return {}
        known = self.rewards[~self.rewards.isnan().any(1)]
        found: dict[str, float | list[float]] = {}
        if len(known):
            found["reward"] = known.max(1).values.tolist()
            found["reward/drawn"] = known.mean(1).tolist()
        if Sampling.of(run.recipe, run.codec).unchanged:
            found["kl"] = kl_bound(self.n)
        return found

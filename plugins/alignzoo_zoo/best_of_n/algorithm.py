"""The best of n completions, by the run's rewards: a baseline that trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import BadInput, Example, Prompts, Run, RunFailed, hookimpl
from alignzoo.rollout import Completion, Sampling, complete, with_rewards
from alignzoo_zoo.best_of_n.selection import best_index, kl_bound


@dataclass(eq=False)
class BestOfN:
    """The best of n completions by reward, without training (https://arxiv.org/abs/2009.01325)"""

    n: Annotated[int, "completions per prompt; the best is the answer", Ge(1), Le(4096)] = 8

    data = Prompts
    trains = False
    defaults = {"steps": 0, "adapter": "none"}

    def __post_init__(self) -> None:
        self.rewards: Tensor | None = None  # [B, n], of the last evaluation

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse greedy sampling, and a run without a reward."""
        if recipe.temperature == 0 and self.n > 1:
            raise BadInput("option --temperature: at 0 all completions of a prompt are identical")
        if not recipe.task and not recipe.reward:
            raise BadInput("option --reward: best-of-n needs a reward")

    @hookimpl
    def alignzoo_answer(self, run: Run, rows: Sequence[Example]) -> list[Completion]:
        """Return the completion with the highest reward of each prompt's n."""
        groups = complete(run, rows, self.n, stream="answer")
        batch = with_rewards(run, rows, groups)
        self.rewards = batch.groups(batch["rewards"])
        if self.rewards.isnan().all():
            raise RunFailed(
                "no reward applied to any completion: there is no best one",
                hint="a reward gives None if it does not apply: do the rows have its column?",
            )
        chosen = best_index(self.rewards).tolist()
        return [group[index] for group, index in zip(groups, chosen, strict=True)]

    @hookimpl
    def alignzoo_evaluate(self, run: Run) -> dict[str, float | list[float]]:
        """Return the rewards of the answers and of all completions, and the bound of the KL.

        The KL cannot be measured: the log-probs of a chosen completion are the model's own.
        """
        if self.rewards is None:  # the evaluation before
            return {}
        known = self.rewards[~self.rewards.isnan().any(1)]
        found: dict[str, float | list[float]] = {}
        if len(known):
            found["reward"] = known.max(1).values.tolist()
            found["reward/drawn"] = known.mean(1).tolist()
        if Sampling.of(run.recipe, run.codec).unchanged:
            found["kl"] = kl_bound(self.n)
        return found

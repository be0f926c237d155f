"""The most likely completion of each prompt, token by token, by the sampler of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from alignzoo.batch import Example
from alignzoo.rollout.generate import Completion
from alignzoo.rollout.rollout import with_rewards
from alignzoo.rollout.sampler import complete
from alignzoo.run import Run


@contextmanager
def greedy_recipe(run: Run) -> Iterator[None]:
    """Set `--temperature` to 0 inside the block: samplers read it from the recipe."""
    before, run.recipe = run.recipe, replace(run.recipe, temperature=0.0)
    try:
        yield
    finally:
        run.recipe = before


def complete_greedily(
    run: Run, rows: Sequence[Example], stream: str = "greedy"
) -> list[list[Completion]]:
    """Return the greedy completion of each prompt under the current policy, a list of one per row.

    It is charged to the ledger, as what `complete` draws.
    """
    with greedy_recipe(run):
        return complete(run, rows, 1, stream)


def greedy_rewards(run: Run, rows: Sequence[Example]) -> Tensor:
    """Return the reward of the greedy completion of each prompt, `[B]`, NaN if none applies.

    Rewards count as feedback, as those of the samples. Call it before the samples are rewarded:
    what rewards log themselves, such as `rubric/NAME`, is then that of the samples.
    """
    return with_rewards(run, rows, complete_greedily(run, rows))["rewards"]

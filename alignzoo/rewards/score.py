"""The rewards of a run, applied to a batch, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.errors import RunFailed
from alignzoo.rewards.rows import reward_failure
from alignzoo.run import Run

LARGEST_SCORE = 1e18  # of a score: its square is a float32
PLUGIN_PREFIX = "reward "  # of the names under which rewards are registered


def score_completions(run: Run, batch: Batch) -> dict[str, Tensor]:
    """Return the scores `[N]` of every reward by its name in the log, NaN if it does not apply."""
    givers = [
        impl.plugin_name.removeprefix(PLUGIN_PREFIX)
        for impl in reversed(run.hook.alignzoo_reward.get_hookimpls())  # the order of the calls
        if not (impl.wrapper or impl.hookwrapper)
    ]
    scores = run.hook.alignzoo_reward(run=run, batch=batch)
    if len(scores) != len(givers):
        raise RunFailed(
            f"{len(givers)} rewards ({', '.join(givers)}) gave {len(scores)} tensors",
            hint="each gives one, and a wrapper of alignzoo_reward returns as many as it was given",
        )
    found = {name: score.float() for name, score in zip(givers, scores, strict=True)}
    for name, score in found.items():
        check_scores(name, score, run, batch)
    return found


def check_scores(name: str, scores: Tensor, run: Run, batch: Batch) -> None:
    """Raise `RunFailed` unless the scores are `[N]`, each a number to compute with or NaN.

    The message has the row and the completion of the first one that is not.
    """
    n = len(batch.completions())
    if scores.shape != (n,):
        raise RunFailed(
            f"reward {name!r} gave scores of shape {list(scores.shape)} for {n} completions",
            hint=f"alignzoo_reward returns a tensor of shape [{n}]",
        )
    wrong = (scores.abs() > LARGEST_SCORE).nonzero().flatten().tolist()
    if wrong:
        value = float(scores[wrong[0]])
        row, text = batch.answered()[wrong[0]], run.texts(batch)[wrong[0]]
        problem = "not finite" if math.isinf(value) else "too large to compute with"
        raise reward_failure(name, f"gave {value:g}, which is {problem}", row, text)


def weighted_sum(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of weight * score over the rewards that apply, `[N]`; NaN if none does.

    A reward that `weights` does not name has weight 1.
    """
    table = torch.stack([weights.get(name, 1.0) * score for name, score in scores.items()])
    if (table.abs() > LARGEST_SCORE).any():
        raise RunFailed("a weighted reward is too large to compute with", hint="lower its weight")
    return table.nansum(0).masked_fill(table.isnan().all(0), torch.nan)

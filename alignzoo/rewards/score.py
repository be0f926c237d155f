"""The rewards of a run, applied to a batch, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.errors import RunFailed
from alignzoo.faults import PluginMethod, describe_example
from alignzoo.run import Run

LARGEST_SCORE = 1e18  # of a score: its square is a float32
PLUGIN_PREFIX = "reward "  # of the names under which rewards are registered


def score_completions(run: Run, batch: Batch) -> dict[str, Tensor]:
    """Return the scores `[N]` of every reward by its name in the log, NaN if it does not apply."""
    givers = [
        impl.plugin_name.removeprefix(PLUGIN_PREFIX)
        for impl in reversed(run.hook.alignzoo_reward.get_hookimpls())  # the order of the calls
        if not impl.wrapper
    ]
    scores = run.hook.alignzoo_reward(run=run, batch=batch)
    return {name: score.float() for name, score in zip(givers, scores, strict=True)}


def check_scores(place: PluginMethod, scores: Tensor, run: Run, batch: Batch) -> None:
    """Raise `RunFailed` unless the scores are `[N]`, each a number to compute with or NaN.

    `place` is what gave them. The message has the row and the completion of the first wrong one.
    """
    n = len(batch.tokens)
    if scores.shape != (n,):
        raise place.fail(
            f"gave scores of shape {list(scores.shape)} for {n} completions",
            hint=f"alignzoo_reward returns a tensor of shape [{n}]",
        )
    # As Python numbers: for a round's few scores that is faster than one operation on a tensor.
    for index, value in enumerate(scores.tolist()):
        if not abs(value) > LARGEST_SCORE:  # NaN is fine
            continue
        row, text = batch.answered()[index], run.texts(batch)[index]
        problem = "not finite" if math.isinf(value) else "too large to compute with"
        raise place.fail(f"gave {value:g}, which is {problem}", describe_example(row, text))


def weighted_sum(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of weight * score over the rewards that apply, `[N]`; NaN if none does.

    A reward that `weights` does not name has weight 1.
    """
    table = torch.stack([weights.get(name, 1.0) * score for name, score in scores.items()])
    if (table.abs() > LARGEST_SCORE).any():
        raise RunFailed("a weighted reward is too large to compute with", hint="lower its weight")
    return table.nansum(0).masked_fill(table.isnan().all(0), torch.nan)

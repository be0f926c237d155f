"""The rewards of a run, applied to a batch, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.errors import RunFailed
from alignzoo.run import Run

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
    return {name: score.float() for name, score in zip(givers, scores, strict=True)}


def weighted_sum(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of weight * score over the rewards that apply, `[N]`; NaN if none does.

    A reward that `weights` does not name has weight 1.
    """
    table = torch.stack([weights.get(name, 1.0) * score for name, score in scores.items()])
    return table.nansum(0).masked_fill(table.isnan().all(0), torch.nan)

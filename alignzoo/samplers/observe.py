"""What is to be seen of a round's fresh completions, in numbers: logged with each of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.policy_gradient import REWARD, spread

if TYPE_CHECKING:
    from alignzoo.run import Run

TIE = 1e-8  # rewards that differ by less are the same


def observe(run: Run, batch: Batch) -> dict[str, float]:
    """The numbers of the whole round, all processes together. All of them call it."""
    columns = {name: x for name, x in batch.columns.items() if name.startswith(REWARD)}
    columns |= {"rewards": batch["rewards"], "ended": batch["ended"], "lengths": batch.lengths}
    return summary({name: everyone(run, batch, x) for name, x in columns.items()})


def observe_weights(run: Run, batch: Batch, weights: Tensor) -> dict[str, float]:
    """What tokens weigh that count, of `[N, T]`, over all processes. All of them call it."""
    gathered = run.gather([weights[batch.mask].tolist()])
    everyone = [weight for part in gathered for weight in part]
    if not everyone:
        return {}
    found = {"min": min(everyone), "mean": fmean(everyone), "max": max(everyone)}
    return {f"sampling/importance_sampling_ratio/{name}": value for name, value in found.items()}


def everyone(run: Run, batch: Batch, column: Tensor) -> Tensor:
    """A column of all processes, `[B, G]` in the order of the rows."""
    return torch.tensor(run.gather(batch.groups(column.double()).tolist()), dtype=torch.float64)


def summary(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """From columns `[B, G]`, under the names that TRL gives to these numbers.

    Spreads are sample standard deviations (n - 1), over what is not NaN; 0 for a single value.
    A mean of nothing is left out.
    """
    rewards, lengths = columns["rewards"], columns["lengths"]
    found = {
        "reward": float(rewards.nanmean()),
        "reward_std": float(spread(rewards.flatten())),
        "frac_reward_zero_std": float(tied(rewards).double().mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/mean_terminated_length": float(lengths[columns["ended"] > 0].mean()),
        "completions/clipped_ratio": float(1 - columns["ended"].mean()),
    }
    for name, scores in columns.items():
        if name.startswith(REWARD):
            label = name.removeprefix(REWARD)
            found[f"rewards/{label}/mean"] = float(scores.nanmean())
            found[f"rewards/{label}/std"] = float(spread(scores.flatten()))
            if scores.isnan().any():
                found[f"rewards/{label}/missing"] = float(scores.isnan().double().mean())
    return {name: value for name, value in found.items() if not math.isnan(value)}


def tied(rewards: Tensor) -> Tensor:
    """Which groups of `[B, G]` have rewards that are all the same, or none: bool, `[B]`."""
    high = rewards.nan_to_num(-torch.inf).max(1).values
    low = rewards.nan_to_num(torch.inf).min(1).values
    return (high - low).clamp(min=0.0) < TIE

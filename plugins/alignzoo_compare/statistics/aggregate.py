"""Scores over several tasks, as rliable has them.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS
2021. Scores are arrays [R runs, T tasks] of the means of runs, on one scale for all tasks. The
intervals are of 95%, by the paper's stratified bootstrap: the runs of each task are drawn again
with replacement, apart from the other tasks'. They cover the choice of runs (seeds), not that of
tasks or items, and with three to five runs a task they cover less than 95%, as the paper says too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import trim_mean

from alignzoo_compare.statistics.behrens_fisher import Array

REPETITIONS = 2000
ENDS = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Aggregate:
    """A quantity over tasks with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Profile:
    """The fraction of runs above each threshold, with bootstrap intervals point by point."""

    threshold: Array
    fraction: Array
    low: Array
    high: Array


def interquartile_mean(scores: Array, seed: int = 0) -> Aggregate:
    """Return the mean of the middle half of all runs on all tasks, scores [R, T].

    A quarter is cut off at either end, as by `scipy.stats.trim_mean`.
    """
    value, low, high = bootstrap(lambda drawn: trim_middle(drawn), [scores], seed)
    return Aggregate(float(value), float(low), float(high))


def trim_middle(scores: Array) -> Array:
    """Return the interquartile means [...] of scores [..., R, T]."""
    return trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def probability_of_improvement(first: Array, second: Array, seed: int = 0) -> Aggregate:
    """Return the probability that a run of `first` beats one of `second` on a task drawn at random.

    It is the mean over tasks of the Mann-Whitney statistic U / (R1 R2), in which a tie is half a
    win. Scores are [R1, T] and [R2, T].
    """
    value, low, high = bootstrap(count_wins, [first, second], seed)
    return Aggregate(float(value), float(low), float(high))


def count_wins(first: Array, second: Array) -> Array:
    """Return the fraction of pairs of runs that `first` [..., R1, T] wins over `second`."""
    gaps = np.sign(first[..., :, None, :] - second[..., None, :, :])
    return (gaps.mean((-3, -2, -1)) + 1) / 2


def performance_profile(scores: Array, thresholds: Array, seed: int = 0) -> Profile:
    """Return the fraction of runs on all tasks [R, T] whose score is above each threshold [n]."""
    thresholds = np.asarray(thresholds, float)

    def fraction_above(drawn: Array) -> Array:
        return np.stack([(drawn > each).mean((-2, -1)) for each in thresholds], axis=-1)

    return Profile(thresholds, *bootstrap(fraction_above, [scores], seed))


def bootstrap(
    statistic: Callable[..., Array], samples: list[Array], seed: int
) -> tuple[Array, Array, Array]:
    """Return a statistic of samples [R, T] and the ends of its stratified bootstrap interval.

    `statistic` takes samples [..., R, T] and returns an array with the same leading shape.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(sample, float) for sample in samples]
    drawn = []
    for array in arrays:
        runs = rng.integers(len(array), size=(REPETITIONS, *array.shape))
        drawn.append(np.take_along_axis(array[None], runs, axis=1))
    low, high = np.percentile(statistic(*drawn), ENDS, axis=0)
    return statistic(*arrays), low, high

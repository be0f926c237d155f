"""Means of scores and their paired differences, with 95% intervals over seeds and items.

Scores of an entry on a task are an array [S seeds, I items], the same items in the same order for
all seeds. Another S seeds and another I items would give another mean. With seeds and items crossed
(score = mean + seed + item + rest, all but the mean random), the variance of the mean is estimated
from the three mean squares of the table (Searle, Casella, McCulloch, "Variance Components", 1992,
ch. 4):

    V_seeds = MS_seeds / (S I)                  S - 1 degrees of freedom
    V_items = (MS_items - MS_rest) / (S I)      I - 1 degrees of freedom, not below 0

V_seeds is the usual squared standard error of the S means of the seeds; it holds the variance of
the rest too. `behrens_fisher` makes intervals and p-values of the two parts. A two-way bootstrap
would do without the normal distribution, but with two to five seeds to draw from it covers less
than 95%: `benchmarks/statistics` has both in its tables.

With one seed only the items vary: V_seeds is taken as 0, and the interval says nothing about
another seed. `warn_of_few_seeds` has the words for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest, t

from alignzoo.errors import BadInput
from alignzoo_compare.statistics.behrens_fisher import Array, half_width, two_sided_p

ALPHA = 0.05
ENOUGH_SEEDS = 5
GRID = 0.02  # of the rest: what rounding to 0 and 1 adds to the mean of 40 items


@dataclass(frozen=True)
class MeanVariance:
    """Means and the parts of their variances, arrays of one shape."""

    mean: Array
    seeds: Array  # variance of the mean by the choice of seeds, and by the rest
    items: Array  # by the choice of items
    rest: Array  # what the rest alone adds to the first
    df_seeds: Array
    df_items: Array

    @property
    def half_width(self) -> Array:
        """Return half the width of the 95% interval."""
        # Both parts can be 0 by chance, in scores that vary.
        items = np.where(self.seeds + self.items > 0, self.items, self.rest)
        return half_width(self.seeds, items, self.df_seeds, self.df_items)

    @property
    def p_value(self) -> Array:
        """Return the two-sided p-value of a mean of 0.

        Without any spread it is that of the sign test on the items, which all agree: 2^(1 - I).
        """
        seeds, items = bound_by_rest(self.seeds, self.items, self.rest)
        p = two_sided_p(self.mean, seeds, items, self.df_seeds, self.df_items)
        return np.where((seeds + items == 0) & (self.mean != 0), 2.0**-self.df_items, p)


def bound_by_rest(seeds: Array, items: Array, rest: Array) -> tuple[Array, Array]:
    """Return the variances by seeds and by items for a test, not below what the rest implies.

    Together they are at least the variance by the rest, which is known well. Without this, right
    or wrong answers whose means are the same for both of two seeds by chance would leave no doubt;
    the variance by seeds is also kept above that of rounding to such a grid.
    """
    seeds = np.maximum(seeds, GRID * rest)
    return seeds, np.maximum(items, rest - seeds)


@dataclass(frozen=True)
class Interval:
    """A mean, the ends of its 95% interval, and how many seeds and items it is over.

    `p_value` is that of a mean of 0 (for differences). With one seed the interval covers the
    items alone.
    """

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    items: int


def estimate_score(scores: Array, bounds: tuple[float, float] | None = None) -> Interval:
    """Return the mean of scores [S, I] with its 95% interval, cut at the `bounds` of the score.

    If all scores are 0, or all are 1, the interval is Wilson's for I items. Raise `BadInput` for
    fewer than two items, `ValueError` for scores that are not finite.
    """
    interval = as_interval(split_variance(scores), *np.shape(scores))
    low, high = interval.low, interval.high
    if np.all(scores == 0) or np.all(scores == 1):
        items = np.shape(scores)[-1]
        low, high = binomtest(round(interval.mean) * items, items).proportion_ci(method="wilson")
    lowest, highest = bounds or (-np.inf, np.inf)
    return replace(interval, low=max(low, lowest), high=min(high, highest))


def estimate_difference(first: Array, second: Array) -> Interval:
    """Return the mean of `first` minus `second`, both [S, I], with its 95% interval and p-value.

    Seed s and item i of both belong together: the same item, and the same seed of the evaluation.
    What both share, the difficulty of the items above all, cancels.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"scores of shapes {np.shape(first)} and {np.shape(second)} are not pairs")
    difference = np.asarray(first, float) - np.asarray(second, float)
    return as_interval(split_variance(difference), *difference.shape)


def as_interval(mean: MeanVariance, seeds: int, items: int) -> Interval:
    """Return the interval of one mean."""
    value, half = float(mean.mean), float(mean.half_width)
    return Interval(value, value - half, value + half, float(mean.p_value), seeds, items)


def split_variance(scores: Array) -> MeanVariance:
    """Return the means of scores [..., S, I] and the parts of their variances, shape [...].

    Raise `BadInput` for fewer than two items, `ValueError` for scores that are not finite.
    """
    scores = np.asarray(scores, float)
    check_scores(scores)
    seeds, items = scores.shape[-2:]
    mean = scores.mean((-2, -1))
    by_seed, by_item = scores.mean(-1), scores.mean(-2)
    v_items = by_item.var(-1, ddof=1) / items
    v_seeds = v_rest = np.zeros_like(mean)
    if seeds > 1:
        rest = scores - by_seed[..., None] - by_item[..., None, :] + mean[..., None, None]
        ms_rest = (rest**2).sum((-2, -1)) / ((seeds - 1) * (items - 1))
        v_seeds = by_seed.var(-1, ddof=1) / seeds
        v_rest = ms_rest / (seeds * items)
        v_items = np.maximum(v_items - v_rest, 0)
    df = np.ones_like(mean)
    return MeanVariance(mean, v_seeds, v_items, v_rest, df * max(seeds - 1, 1), df * (items - 1))


def average_tasks(means: Sequence[MeanVariance]) -> MeanVariance:
    """Return the mean over tasks of means whose seeds and items are independent between tasks.

    The tasks are those that they are, not a sample of tasks. Each part of the variance is the sum
    over tasks divided by the number squared, its degrees of freedom are Satterthwaite's.
    """
    count = len(means)
    seeds, df_seeds = pool_variances([m.seeds for m in means], [m.df_seeds for m in means])
    items, df_items = pool_variances([m.items for m in means], [m.df_items for m in means])
    mean = np.mean([m.mean for m in means], axis=0)
    rest = np.sum([m.rest for m in means], axis=0)
    squared = count**2
    return MeanVariance(mean, seeds / squared, items / squared, rest / squared, df_seeds, df_items)


def pool_variances(variances: Sequence[Array], df: Sequence[Array]) -> tuple[Array, Array]:
    """Return the sum of independent variances, and its degrees of freedom by Satterthwaite."""
    stacked, degrees = np.stack(variances), np.stack(df)
    total, squares = stacked.sum(0), (stacked**2 / degrees).sum(0)
    with np.errstate(invalid="ignore"):
        pooled = total**2 / squares
    return total, np.where(squares > 0, pooled, degrees.min(0))


def mean_over_seeds(values: Array) -> Interval:
    """Return the mean of one value per seed [S] with Student's 95% interval.

    One value has no interval: its ends and its p-value are NaN, as is all of it without a value.
    """
    values = np.asarray(values, float)
    count = len(values)
    if count < 2:
        return Interval(values.sum() if count else np.nan, np.nan, np.nan, np.nan, count, 0)
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(count))
    half = float(t.ppf(1 - ALPHA / 2, count - 1)) * error
    p = float(two_sided_p(mean, error**2, 0, count - 1, 1))
    return Interval(mean, mean - half, mean + half, p, count, 0)


def fill_failed_seeds(scores: Array, base: Array) -> Array:
    """Return scores [S, I] whose failed seeds, rows of NaN, are those of the base [S, I].

    Failed runs stay in the mean: left out, an entry that often fails would look as good as its
    lucky seeds. As in the AutoML benchmark (Gijsbers et al. 2024), which scores a failed run as its
    constant predictor, a failed run leaves what there was before it, here the base.
    """
    return np.where(np.isnan(scores).all(-1, keepdims=True), base, scores)


def warn_of_few_seeds(seeds: int) -> str | None:
    """Return what a reader must know of intervals over so few seeds, or None for enough."""
    if seeds == 1:
        return "1 seed: the intervals cover the choice of items alone, another seed may differ more"
    if seeds < ENOUGH_SEEDS:
        return f"{seeds} seeds are few: intervals are wide and cover only about 95%, 93% to 98%"
    return None


def check_scores(scores: Array) -> None:
    """Raise `BadInput` for fewer than two items, `ValueError` for scores that are not finite."""
    if scores.ndim < 2 or scores.shape[-2] < 1:
        raise ValueError(f"scores are [..., seeds, items], not of shape {scores.shape}")
    if scores.shape[-1] < 2:
        raise BadInput(
            "an interval needs at least two items", hint="evaluate more items: --eval-size"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite; fill_failed_seeds fills failed seeds")

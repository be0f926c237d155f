"""Means with 95% intervals and correlations, in closed form: no resampling, the same every time.

scipy is imported by the functions that need it: that takes most of a second, which a command that
prints no interval should not wait for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items; `low` and `high` are its 95% interval, None if it has none."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1


def mean_with_interval(values: Sequence[float]) -> Estimate:
    """Return the mean and its 95% interval: Wilson's for zeros and ones, Student's otherwise.

    Fewer than three numbers other than 0 and 1 have no interval. Raise `ValueError` for none at
    all.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to estimate a mean from")
    mean = math.fsum(values) / n
    if all(value in (0, 1) for value in values):
        low, high = wilson_interval(sum(value == 1 for value in values), n)
        return Estimate(mean, low, high, n)
    if n < 3:
        return Estimate(mean, n=n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = student_quantile(n - 1) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95% score interval of the proportion `successes / n`.

    It keeps its coverage near 0 and 1, where the normal interval collapses to a point.
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def student_quantile(degrees: int) -> float:
    """Return the 97.5% quantile of Student's t with so many degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's r of two sequences of one length; NaN if one of them does not vary."""
    from scipy.stats import pearsonr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(pearsonr(x, y).statistic)

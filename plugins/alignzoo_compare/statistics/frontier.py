"""Scores at a given KL to the base, or at a given compute, from the evaluations during runs.

A curve of a run is two arrays of one length: x, the KL or the FLOPs at each evaluation, and the
score there. The score at an x in between is interpolated linearly, with the evaluations in the
order of x. A run has no score at an x beyond its largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from alignzoo_compare.statistics.behrens_fisher import Array
from alignzoo_compare.statistics.intervals import Interval, mean_over_seeds

Curve = tuple[ArrayLike, ArrayLike]


def interpolate(curve: Curve, at: ArrayLike) -> Array:
    """Return the scores of a run at the x's `at`, NaN outside the range of its evaluations."""
    x, score = (np.asarray(part, float) for part in curve)
    order = np.argsort(x, kind="stable")
    return np.interp(np.asarray(at, float), x[order], score[order], left=np.nan, right=np.nan)


def estimate_at(curves: Sequence[Curve], at: float) -> Interval:
    """Return the mean score at x over the seeds that reach it, with Student's interval.

    `seeds` of the result is the number of those. If some do not reach x, the mean is that of the
    seeds that moved furthest, which is not a mean over all.
    """
    scores = np.array([interpolate(curve, at) for curve in curves])
    return mean_over_seeds(scores[~np.isnan(scores)])


def compare_at(first: Mapping[int, Curve], second: Mapping[int, Curve], at: float) -> Interval:
    """Return the mean difference of two entries at x over the seeds that reach it in both.

    The curves are by seed; the differences are paired by seed.
    """
    shared = sorted(first.keys() & second.keys())
    gaps = np.array([interpolate(first[s], at) - interpolate(second[s], at) for s in shared])
    return mean_over_seeds(gaps[~np.isnan(gaps)])

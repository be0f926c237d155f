"""The difference that two entries would have at equal length.

A longer answer may score better for its length alone. As in AlpacaEval 2 (Dubois et al. 2024), the
difference in score of each item is regressed on its difference in length, and what is left at no
difference in length is the length-controlled difference. AlpacaEval regresses preferences by a
logistic model with terms for the items' difficulty; here scores are paired item by item, so that
the difficulty cancels, and the regression is linear:

    score difference = controlled + slope tanh(length difference / its root mean square) + error

tanh is AlpacaEval's: it keeps a few very long answers from setting the slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignzoo_compare.statistics.behrens_fisher import Array
from alignzoo_compare.statistics.intervals import Interval, estimate_difference, estimate_score


@dataclass(frozen=True)
class LengthControl:
    """Paired differences in score, as they are and at equal length, and the slope by length.

    `extrapolated` tells that one entry is the longer one nearly always (19 of 20 completions), so
    that the data have no completions of equal length and `controlled` rests on the straight line.
    """

    raw: Interval
    controlled: Interval
    slope: float
    extrapolated: bool


def control_length(
    first: Array, second: Array, first_length: Array, second_length: Array
) -> LengthControl:
    """Return the difference of scores `first` minus `second` with the effect of length removed.

    All arrays are [S, I], seeds and items paired as in `estimate_difference`. The interval of the
    controlled difference covers seeds and items: an estimate by least squares is a mean of one
    value per seed and item (its influence), and these are treated as scores are.
    """
    from statsmodels.api import OLS  # takes more than a second to import

    difference = np.asarray(first, float) - np.asarray(second, float)
    lengths = np.asarray(first_length, float) - np.asarray(second_length, float)
    raw = estimate_difference(first, second)
    scale = np.sqrt(np.mean(lengths**2))
    longer = max(np.mean(lengths > 0), np.mean(lengths < 0))
    if np.ptp(lengths) == 0:  # nothing to regress on
        return LengthControl(raw, raw, 0.0, bool(lengths.any()))
    terms = np.column_stack([np.ones(lengths.size), np.tanh(lengths / scale).ravel()])
    fit = OLS(difference.ravel(), terms).fit()
    shares = fit.model.pinv_wexog[0]  # the intercept is the sum of shares times differences
    influence = fit.params[0] + shares * fit.resid * lengths.size
    controlled = estimate_score(influence.reshape(lengths.shape))
    return LengthControl(raw, controlled, float(fit.params[1]), bool(longer > 0.95))

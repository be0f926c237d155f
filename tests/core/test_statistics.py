"""Intervals against published tables and worked examples."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from alignzoo.evaluation.statistics import (
    correlation,
    mean_with_interval,
    student_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.70620), (2, 4.30265), (3, 3.18245), (5, 2.57058), (10, 2.22814), (30, 2.04227)],
)
def test_students_quantiles_are_those_of_the_tables(degrees, quantile):
    assert student_quantile(degrees) == pytest.approx(quantile, abs=1e-5)


def test_wilson_by_hand():
    # p = 0.5, n = 10, z2 = 3.8414588: centre (0.5 + 0.19207294) / 1.38414588 = 0.5,
    # half = 1.959964 * sqrt(0.025 + 0.009603647) / 1.38414588 = 1.959964 * 0.18602055 / 1.38414588
    #      = 0.2634069
    assert wilson_interval(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)


def test_wilson_does_not_collapse_at_the_ends():
    # z2 / (n + z2) = 3.8414588 / 23.8414588
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson_interval(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)


def test_mean_of_numbers_by_hand():
    # mean 3, variance 2.5, n = 5: half = 2.776445 * sqrt(0.5) = 1.963243
    found = mean_with_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert (found.low, found.high) == pytest.approx((1.036757, 4.963243), abs=1e-6)


def test_mean_of_zeros_and_ones_has_the_interval_of_a_proportion():
    found = mean_with_interval([0.0, 1.0, True, 1.0])
    assert (found.mean, found.n) == (0.75, 4)
    assert (found.low, found.high) == pytest.approx(wilson_interval(3, 4))


def test_equal_numbers_have_an_interval_of_no_width():
    found = mean_with_interval([0.5] * 4)
    assert found.mean == found.low == found.high == 0.5


def test_too_few_numbers_have_no_interval():
    assert mean_with_interval([0.5, 0.7]).low is None
    with pytest.raises(ValueError, match="no values"):
        mean_with_interval([])


def test_correlation_by_hand():
    # Deviations (-1, 0, 1) and (-1, 1, 0): their product is 1, their squares 2 and 2.
    assert correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert correlation([1, 2, 3], [6, 4, 2]) == pytest.approx(-1.0)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0]])
def test_what_does_not_vary_has_no_correlation(x):
    assert math.isnan(correlation(x, list(range(len(x)))))


def test_importing_the_evaluation_imports_neither_scipy_s_statistics_nor_evaluate():
    code = (
        "import sys, alignzoo.evaluation.statistics;"
        "assert not {'scipy.stats', 'evaluate'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Intervals against published tables and worked examples."""

from __future__ import annotations

import pytest

from alignzoo.evaluation import Mean
from alignzoo.evaluation.statistics import estimate, student_t, wilson


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.18245), (5, 2.57058), (10, 2.22814), (30, 2.04227)]
)
def test_students_quantiles(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, rel=2e-3)


def test_wilson_by_hand():
    # p = 0.5, n = 10, z2 = 3.8414588: centre (0.5 + 0.19207294) / 1.38414588 = 0.5,
    # half = 1.959964 * sqrt(0.025 + 0.009603647) / 1.38414588 = 1.959964 * 0.18602055 / 1.38414588
    #      = 0.2634069
    assert wilson(0.5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)


def test_wilson_does_not_collapse_at_the_ends():
    # z2 / (n + z2) = 3.8414588 / 23.8414588
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson(1.0, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)


def test_mean_of_numbers_by_hand():
    # mean 3, variance 2.5, n = 5: half = 2.776445 * sqrt(0.5) = 1.963243
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert (found.low, found.high) == pytest.approx((1.036757, 4.963243), abs=2e-3)


def test_too_few_numbers_have_no_interval():
    assert estimate([0.5, 0.7]).low is None
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_the_packaged_metric_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = Mean().compute(predictions=[0.0, 1.0, 1.0, 1.0])
    assert found["mean"] == 0.75
    assert (found["low"], found["high"]) == pytest.approx(wilson(0.75, 4))
    assert found["n"] == 4

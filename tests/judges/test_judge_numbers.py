"""The maths of judging, by numbers derived by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo_judges import Verdict
from alignzoo_judges.numbers import between, both_orders, correlation, expected, normalised
from alignzoo_judges.rate import score

share = st.floats(0, 1)


def test_options_are_renormalised_among_themselves():
    # 0.6 and 0.2 of all that could have been said: 0.75 and 0.25 of what is an option.
    assert normalised([math.log(0.6), math.log(0.2)]) == pytest.approx([0.75, 0.25])
    assert normalised([-1e4, -1e4]) == [0.5, 0.5]  # no underflow
    assert normalised([0.0, -math.inf]) == [1.0, 0.0]
    assert all(map(math.isnan, normalised([-math.inf, -math.inf])))
    assert all(map(math.isnan, normalised([math.nan, 0.0])))


def test_a_leaning_to_the_first_place_cancels():
    # It thinks 0.6 of a and adds 0.3 to whatever comes first: 0.9 for a first, and with b first
    # 0.4 + 0.3 = 0.7 for b, 0.3 for a. On average a has (0.9 + 0.3) / 2 = 0.6 again.
    assert both_orders([0.9, 0.1], [0.7, 0.3]) == pytest.approx((0.6, 0.4))


@given(share, share, share, share)
def test_swapping_a_and_b_leaves_the_label_unchanged_exactly(p, q, r, s):
    there, back = both_orders([p, q], [r, s]), both_orders([r, s], [p, q])
    assert there == back[::-1]


@pytest.mark.parametrize(
    ("a_first", "b_first", "flips"),
    [
        ([0.9, 0.1], [0.7, 0.3], True),  # the first one both times
        ([0.9, 0.1], [0.2, 0.8], False),  # a both times
        ([0.4, 0.6], [0.3, 0.7], True),  # the second one both times
        ([0.5, 0.5], [0.3, 0.7], False),  # even: on no side
        ([math.nan] * 2, [0.3, 0.7], False),
    ],
)
def test_orders_disagree_where_one_place_wins_twice(a_first, b_first, flips):
    assert Verdict(a_first, b_first).flips is flips


def test_one_order_alone_is_unusable():
    assert not Verdict([math.nan] * 2, [0.3, 0.7]).usable
    assert Verdict([0.5, 0.5], [0.3, 0.7]).usable


def test_a_score_is_the_expected_rating_from_minus_one_to_one():
    assert score([1.0] + [0.0] * 9) == -1
    assert score([0.0] * 9 + [1.0]) == 1
    # An even judge expects 5.5, the middle.
    assert score([0.1] * 10) == pytest.approx(0.0)
    # Half 1, half 4: E = 2.5, 2 * 1.5 / 9 - 1 = -2/3.
    assert score([0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]) == pytest.approx(-2 / 3)
    assert math.isnan(score([math.nan] * 10))


@given(share)
def test_gold_spread_over_the_ratings_keeps_its_mean(x):
    p = between(x, 10)
    assert sum(p) == pytest.approx(1)
    assert expected(p, [i / 9 for i in range(10)]) == pytest.approx(x, abs=1e-12)


def test_correlation():
    # Means 2 and 2: xx = 2, yy = 2, xy = (-1)(-1) + 0 * 1 + 1 * 0 = 1, r = 1/2.
    assert correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert math.isnan(correlation([1, 1], [0, 1]))
    assert math.isnan(correlation([1], [1]))

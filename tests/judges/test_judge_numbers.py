"""The maths of judging, by numbers derived by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo_judges import Verdict
from alignzoo_judges.comparison import average_orders
from alignzoo_judges.judge import interpolate, normalise
from alignzoo_judges.rating import score_rating

share = st.floats(0, 1)


def test_options_are_renormalised_among_themselves():
    # 0.6 and 0.2 of all that could have been said: 0.75 and 0.25 of what is an option.
    assert normalise([math.log(0.6), math.log(0.2)]) == pytest.approx([0.75, 0.25])
    assert normalise([-1e4, -1e4]) == [0.5, 0.5]  # no underflow
    assert normalise([0.0, -math.inf]) == [1.0, 0.0]
    assert all(map(math.isnan, normalise([-math.inf, -math.inf])))
    assert all(map(math.isnan, normalise([math.nan, 0.0])))


def test_a_leaning_to_the_first_place_cancels():
    # It thinks 0.6 of a and adds 0.3 to whatever comes first: 0.9 for a first, and with b first
    # 0.4 + 0.3 = 0.7 for b, 0.3 for a. On average a has (0.9 + 0.3) / 2 = 0.6 again.
    assert average_orders([0.9, 0.1], [0.7, 0.3]) == pytest.approx((0.6, 0.4))


@given(share, share, share, share)
def test_swapping_a_and_b_leaves_the_label_unchanged_exactly(p, q, r, s):
    there, back = average_orders([p, q], [r, s]), average_orders([r, s], [p, q])
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
    assert score_rating([1.0] + [0.0] * 9) == -1
    assert score_rating([0.0] * 9 + [1.0]) == 1
    # An even judge expects 5.5, the middle.
    assert score_rating([0.1] * 10) == pytest.approx(0.0)
    # Half 1, half 4: E = 2.5, 2 * 1.5 / 9 - 1 = -2/3.
    assert score_rating([0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]) == pytest.approx(-2 / 3)
    assert math.isnan(score_rating([math.nan] * 10))


@given(share)
def test_gold_spread_over_the_ratings_keeps_its_mean(x):
    p = interpolate(x, 10)
    assert sum(p) == pytest.approx(1)
    assert sum(p[i] * i / 9 for i in range(10)) == pytest.approx(x, abs=1e-12)

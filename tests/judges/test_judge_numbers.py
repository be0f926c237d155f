"""The maths of judging, against numbers derived by hand."""

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


def test_probabilities_are_normalised_over_the_options():
    # 0.6 and 0.2 of all tokens are 0.75 and 0.25 of the options.
    assert normalise([math.log(0.6), math.log(0.2)]) == pytest.approx([0.75, 0.25])
    assert normalise([-1e4, -1e4]) == [0.5, 0.5]  # no underflow
    assert normalise([0.0, -math.inf]) == [1.0, 0.0]
    assert all(map(math.isnan, normalise([-math.inf, -math.inf])))
    assert all(map(math.isnan, normalise([math.nan, 0.0])))


def test_position_bias_cancels():
    # The judge gives a 0.6, and adds 0.3 to whatever comes first: 0.9 for a first, and with b first
    # 0.4 + 0.3 = 0.7 for b, 0.3 for a. On average a has (0.9 + 0.3) / 2 = 0.6 again.
    assert average_orders([0.9, 0.1], [0.7, 0.3]) == pytest.approx((0.6, 0.4))


@given(share, share, share, share)
def test_swapping_a_and_b_swaps_the_label_exactly(p, q, r, s):
    there, back = average_orders([p, q], [r, s]), average_orders([r, s], [p, q])
    assert there == back[::-1]


@pytest.mark.parametrize(
    ("a_first", "b_first", "flips"),
    [
        ([0.9, 0.1], [0.7, 0.3], True),  # the first in both orders
        ([0.9, 0.1], [0.2, 0.8], False),  # a in both orders
        ([0.4, 0.6], [0.3, 0.7], True),  # the second in both orders
        ([0.5, 0.5], [0.3, 0.7], False),  # a tie prefers neither
        ([math.nan] * 2, [0.3, 0.7], False),
    ],
)
def test_a_preference_flips_if_one_position_wins_twice(a_first, b_first, flips):
    assert Verdict(a_first, b_first).flips is flips


def test_one_order_alone_is_unusable():
    assert not Verdict([math.nan] * 2, [0.3, 0.7]).usable
    assert Verdict([0.5, 0.5], [0.3, 0.7]).usable


def test_a_score_is_the_expected_rating_from_minus_one_to_one():
    assert score_rating([1.0] + [0.0] * 9) == -1
    assert score_rating([0.0] * 9 + [1.0]) == 1
    # A uniform judge expects 5.5, the middle.
    assert score_rating([0.1] * 10) == pytest.approx(0.0)
    # Half 1, half 4: E = 2.5, 2 * 1.5 / 9 - 1 = -2/3.
    assert score_rating([0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]) == pytest.approx(-2 / 3)
    assert math.isnan(score_rating([math.nan] * 10))


@given(share)
def test_interpolation_keeps_the_mean(x):
    p = interpolate(x, 10)
    assert sum(p) == pytest.approx(1)
    assert sum(p[i] * i / 9 for i in range(10)) == pytest.approx(x, abs=1e-12)

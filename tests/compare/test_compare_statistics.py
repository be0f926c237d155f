"""The statistics of comparisons against closed forms, published numbers and other libraries."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import integrate, stats

from alignzoo.errors import BadInput
from alignzoo_compare.statistics.aggregate import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from alignzoo_compare.statistics.behrens_fisher import (
    critical_distance,
    half_width,
    two_sided_p,
)
from alignzoo_compare.statistics.frontier import compare_at, estimate_at, interpolate
from alignzoo_compare.statistics.intervals import (
    average_tasks,
    estimate_difference,
    estimate_score,
    fill_failed_seeds,
    mean_over_seeds,
    split_variance,
    warn_of_few_seeds,
)
from alignzoo_compare.statistics.length import control_length
from alignzoo_compare.statistics.multiple import (
    compare_with,
    correct_by_holm,
    find_groups,
    least_detectable_difference,
    rank_entries,
    split_pair_variance,
)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Return scores [..., S, I] that vary by seed, item and both."""
    rng = np.random.default_rng(seed)
    by_seed = rng.normal(0, 0.1, (*shape[:-1], 1))
    by_item = rng.normal(0, 0.3, shape[-1:])
    return 0.5 + by_seed + by_item + rng.normal(0, 0.2, shape)


# The Behrens-Fisher distribution


@pytest.mark.parametrize(
    ("df", "degrees", "value"),
    [((6, 12), 45, 2.301), ((8, 8), 45, 2.292), ((12, 12), 45, 2.167)],
)
def test_critical_distances_are_those_of_the_published_table(df, degrees, value):
    """Two-sided 5% points of Sukhatme's table (Sankhya 4, 1938; Fisher and Yates, table VI)."""
    first, second = np.sin(np.radians(degrees)) ** 2, np.cos(np.radians(degrees)) ** 2
    assert critical_distance(first, second, *df, 0.05) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("df", [1, 2, 4])
@pytest.mark.parametrize("comparisons", [1, 105, 435, 2000])
def test_critical_distances_are_found_far_in_the_tails(df, comparisons):
    shares = np.array([0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
    alpha = 0.05 / comparisons
    found = critical_distance(shares, 1 - shares, df, 39, alpha)
    p_value = two_sided_p(found, shares, 1 - shares, df, 39)
    assert p_value == pytest.approx(np.full(6, alpha), rel=1e-3)


@pytest.mark.parametrize("df", [1, 2, 4, 9])
@pytest.mark.parametrize("first", [0.3, 3.0])
def test_p_is_the_integral_over_both_distributions(df, first):
    def beyond(x: float) -> float:
        rest = [stats.t.sf((3 + sign * np.sqrt(first) * x) / np.sqrt(0.5), 20) for sign in (1, -1)]
        return float(stats.t.pdf(x, df) * sum(rest))

    expected, _ = integrate.quad(beyond, -np.inf, np.inf)
    assert two_sided_p(3, first, 0.5, df, 20) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("df", [1, 2, 4, 9])
@pytest.mark.parametrize("p", [0.5, 0.05, 0.001])
def test_without_a_second_variance_it_is_student_s_distribution(df, p):
    distance = 3 * stats.t.ppf(1 - p / 2, df)
    assert two_sided_p(-distance, 9, 0, df, 199) == pytest.approx(p, rel=2e-3)
    assert two_sided_p(distance, 0, 9, 1, 199) == pytest.approx(
        2 * stats.t.sf(distance / 3, 199), rel=1e-4
    )


def test_nothing_that_varies_leaves_no_doubt():
    assert two_sided_p([0.0, 0.1], 0, 0, 4, 199).tolist() == [1.0, 0.0]
    assert half_width(0, 0, 4, 199) == critical_distance(0, 0, 4, 199, 0.05) == 0


def test_the_interval_lies_between_the_quantiles_of_both_parts_by_hand():
    # Shares 1/2: t(4) = 2.776445, t(199) = 1.971957, weight 0.5^1.5 = 0.353553.
    # 0.353553 * 2.776445 + 0.646447 * 1.971957 = 2.256387, times sqrt(2).
    assert half_width(1, 1, 4, 199) == pytest.approx(3.191013, abs=2e-6)
    # Two seeds, Cochran's weight: (12.706205 + 1.971957) / 2 * sqrt(2) = 10.379027
    assert half_width(1, 1, 1, 199) == pytest.approx(10.379027, abs=2e-6)


# Means and differences


def test_the_variance_of_a_mean_by_hand():
    """Seeds (1, 2, 3) and (3, 4, 8).

    Means of seeds 2 and 5: variance 4.5, / 2 = 2.25. Means of items 2, 3, 5.5: variance 3.25, / 3 =
    1.083333. The rest is (0.5, 0.5, -1) and its negative: squares 3, / ((2 - 1) (3 - 1)) = 1.5,
    / 6 = 0.25.
    """
    found = split_variance([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    assert (found.mean, found.seeds) == (3.5, 2.25)
    assert found.rest == 0.25
    assert found.items == pytest.approx(3.25 / 3 - 0.25)
    assert (found.df_seeds, found.df_items) == (1, 2)


def test_the_variances_are_those_of_an_analysis_of_variance():
    from statsmodels.api import OLS

    scores = draw(3, 12)
    seeds, items = (np.arange(n) for n in scores.shape)
    of_seed, of_item = np.meshgrid(seeds, items, indexing="ij")
    seed_columns = (of_seed.ravel()[:, None] == seeds[1:]).astype(float)
    item_columns = (of_item.ravel()[:, None] == items[1:]).astype(float)
    one = np.ones((scores.size, 1))
    whole, no_seeds, no_items = (
        OLS(scores.ravel(), np.hstack(columns)).fit().ssr
        for columns in ([one, seed_columns, item_columns], [one, item_columns], [one, seed_columns])
    )
    ms_seeds, ms_items, ms_rest = (no_seeds - whole) / 2, (no_items - whole) / 11, whole / 22
    found = split_variance(scores)
    assert found.seeds == pytest.approx(ms_seeds / 36)
    assert found.items == pytest.approx((ms_items - ms_rest) / 36)


def test_one_seed_is_a_mean_over_items():
    scores = draw(1, 40)
    found = estimate_score(scores)
    low, high = stats.t.interval(0.95, 39, scores.mean(), stats.sem(scores[0]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert "items alone" in str(warn_of_few_seeds(1))
    assert "few" in str(warn_of_few_seeds(2)) and warn_of_few_seeds(5) is None


def test_one_seed_s_paired_difference_is_the_paired_t_test():
    first, second = draw(2, 1, 40)
    expected = stats.ttest_rel(first[0], second[0])
    found = estimate_difference(first, second)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-4)


def test_seeds_that_repeat_each_other_are_one_seed():
    scores = np.repeat(draw(1, 40), 3, axis=0)
    assert estimate_score(scores).low == pytest.approx(estimate_score(scores[:1]).low)


def test_items_that_repeat_each_other_leave_the_seeds():
    scores = np.repeat(draw(5, 2)[:, :1], 40, axis=1)
    low, high = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores[:, 0]))
    found = estimate_score(scores)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_what_entries_share_cancels_in_their_difference():
    first, second = draw(2, 5, 40)
    shared = np.linspace(-5, 5, 200).reshape(5, 40)
    ours, theirs = (
        estimate_difference(first, second),
        estimate_difference(first + shared, second + shared),
    )
    assert ours.low == pytest.approx(theirs.low) and ours.p_value == pytest.approx(theirs.p_value)


def test_all_items_right_has_wilson_s_interval():
    found = estimate_score(np.ones((3, 20)), bounds=(0, 1))
    assert (found.low, found.high) == pytest.approx((0.8388748, 1.0), abs=1e-6)
    assert estimate_score(np.full((3, 20), 0.3)).low == pytest.approx(0.3)


def test_an_interval_ends_at_the_bounds_of_the_score():
    scores = np.zeros((2, 50))
    scores[0, 0] = 1
    assert estimate_score(scores).low < 0 and estimate_score(scores, bounds=(0, 1)).low == 0


def test_a_difference_that_never_varies_is_judged_by_the_signs_of_the_items():
    assert estimate_difference(np.ones((2, 5)), np.zeros((2, 5))).p_value == 2**-4
    assert estimate_difference(np.ones((2, 5)), np.ones((2, 5))).p_value == 1


def test_two_seeds_that_agree_by_chance_do_not_settle_a_difference():
    difference = np.zeros((2, 100))
    difference[0, :30] = difference[1, 50:80] = 1  # other items, the same mean
    found = split_variance(difference)
    assert found.seeds == found.items == 0 and found.rest > 0
    alone = dataclasses.replace(found, rest=np.zeros(()))
    assert alone.p_value == 2**-99 and alone.half_width == 0
    assert 1e-6 < found.p_value < 0.05 and found.half_width > 1.9 * np.sqrt(found.rest)


def test_scores_that_cannot_be_used():
    with pytest.raises(BadInput, match="at least two items"):
        estimate_score(np.ones((3, 1)))
    with pytest.raises(ValueError, match="not finite"):
        estimate_score(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="not pairs"):
        estimate_difference(np.ones((2, 3)), np.ones((1, 3)))


def test_a_failed_seed_counts_as_the_base():
    scores, base = draw(2, 3, 10)
    failed = scores.copy()
    failed[1] = np.nan
    filled = fill_failed_seeds(failed, base)
    assert (filled[1] == base[1]).all() and (filled[[0, 2]] == scores[[0, 2]]).all()


def test_tasks_add_their_variances():
    first, second = split_variance(draw(5, 40)), split_variance(draw(5, 60, seed=1))
    both = average_tasks([first, second])
    assert both.seeds == pytest.approx((first.seeds + second.seeds) / 4)
    expected = (first.seeds + second.seeds) ** 2 / (first.seeds**2 / 4 + second.seeds**2 / 4)
    assert both.df_seeds == pytest.approx(expected)
    assert average_tasks([first]).half_width == pytest.approx(first.half_width)


def test_a_mean_over_seeds_is_student_s():
    found = mean_over_seeds(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found.low, found.high) == pytest.approx((1.036757, 4.963243), abs=1e-6)
    assert found.p_value == pytest.approx(stats.ttest_1samp([1, 2, 3, 4, 5], 0).pvalue, rel=1e-4)
    assert mean_over_seeds(np.array([2.0])).mean == 2 and np.isnan(
        mean_over_seeds(np.array([])).mean
    )


# Many entries


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, never falling.
    found = correct_by_holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(correct_by_holm(np.array([]))) == 0


def test_pairs_at_once_are_pairs_one_by_one():
    scores = draw(4, 5, 30)
    found = split_pair_variance(scores)
    for index, (i, j) in enumerate(zip(*np.triu_indices(4, 1), strict=True)):
        one = split_variance(scores[i] - scores[j])
        for part in ("mean", "seeds", "items", "rest", "df_seeds", "df_items"):
            assert getattr(found, part)[index] == pytest.approx(getattr(one, part))


def test_what_is_far_apart_is_ranked_and_what_is_equal_is_not():
    scores = draw(5, 5, 100) + np.array([0, 3, 0, 6, 3])[:, None, None]
    scores[2] = scores[0]
    found = rank_entries([scores])
    assert found.rank_low.tolist() == [4, 2, 4, 1, 2]
    assert found.rank_high.tolist() == [5, 3, 5, 1, 3]
    assert [set(group) for group in found.groups] == [{3}, {1, 4}, {0, 2}]
    assert found.p_value[0, 2] == 1 and (found.p_value == found.p_value.T).all()
    assert (found.difference == found.mean[:, None] - found.mean).all()
    assert rank_entries([scores, scores]).rank_low.tolist() == [4, 2, 4, 1, 2]


def test_groups_overlap_when_only_the_ends_are_told_apart():
    apart = np.zeros((3, 3), bool)
    apart[0, 2] = apart[2, 0] = True
    assert find_groups(apart, np.array([0.1, 0.2, 0.3])) == ((2, 1), (1, 0))


def test_entries_are_compared_with_a_control():
    control, *entries = draw(4, 5, 50)
    found = compare_with(np.stack(entries), control)
    alone = [estimate_difference(entry, control) for entry in entries]
    assert [each.low for each in found] == [each.low for each in alone]
    corrected = correct_by_holm(np.array([each.p_value for each in alone]))
    assert [each.p_value for each in found] == pytest.approx(corrected)


def test_the_least_detectable_difference_is_that_of_the_t_test_if_only_seeds_vary():
    """The power of a t test is known in closed form, by the noncentral t distribution."""
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
    variances = split_variance(np.repeat(draw(5, 2)[:, :1], 40, axis=1))
    deviation = np.sqrt(5 * variances.seeds)
    assert least_detectable_difference(variances) == pytest.approx(effect * deviation, rel=1e-3)
    assert least_detectable_difference(variances, comparisons=10) > effect * deviation


# Several tasks


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    scores = np.array([[0.0, 0.5], [0.1, 0.6], [0.2, 0.7], [0.3, 9.0]])
    found = interquartile_mean(scores)
    assert found.value == pytest.approx((0.2 + 0.3 + 0.5 + 0.6) / 4)
    assert found.low < found.value < found.high
    assert interquartile_mean(scores) == found  # the same every time
    equal = interquartile_mean(np.full((3, 2), 0.4))
    assert (equal.value, equal.low, equal.high) == pytest.approx((0.4, 0.4, 0.4))


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    first, second = draw(2, 5, 3).round(1)
    found = probability_of_improvement(first, second)
    expected = [
        stats.mannwhitneyu(x, y).statistic / 25 for x, y in zip(first.T, second.T, strict=True)
    ]
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low <= found.value <= found.high
    assert probability_of_improvement(first, first).value == 0.5


def test_the_profile_is_the_fraction_of_runs_above():
    found = performance_profile(np.array([[0.1, 0.4], [0.2, 0.4]]), np.array([0.0, 0.1, 0.3, 0.4]))
    assert found.fraction.tolist() == [1, 0.75, 0.5, 0]
    assert (found.low <= found.fraction).all() and (found.fraction <= found.high).all()


# Length


def test_a_score_that_is_length_alone_leaves_no_difference():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(10, 60, (5, 100)), rng.integers(5, 50, (5, 100))
    gap = ours - theirs
    effect = 0.2 * np.tanh(gap / np.sqrt(np.mean(gap**2)))
    found = control_length(0.5 + effect, np.full((5, 100), 0.5), ours, theirs)
    assert found.raw.low > 0.01
    assert found.controlled.mean == pytest.approx(0, abs=1e-12)
    assert found.slope == pytest.approx(0.2) and not found.extrapolated


def test_the_error_at_equal_length_is_that_of_the_regression():
    from statsmodels.api import OLS

    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(10, 60, (1, 400)), rng.integers(5, 50, (1, 400))
    first, second = draw(2, 1, 400)
    found = control_length(first, second, ours, theirs)
    gap = ours[0] - theirs[0]
    terms = np.column_stack([np.ones(400), np.tanh(gap / np.sqrt(np.mean(gap**2)))])
    fit = OLS((first - second)[0], terms).fit(cov_type="HC1")
    assert found.controlled.mean == pytest.approx(fit.params[0])
    half = stats.t.ppf(0.975, 399) * fit.bse[0]
    assert found.controlled.high - found.controlled.mean == pytest.approx(half, rel=5e-3)


def test_lengths_that_cannot_be_controlled_for():
    first, second = draw(2, 3, 20)
    same = control_length(first, second, np.full((3, 20), 7), np.full((3, 20), 7))
    assert same.controlled == same.raw and not same.extrapolated
    lengths = np.arange(60).reshape(3, 20)
    assert control_length(first, second, lengths + 100, lengths // 2).extrapolated


# Scores at a KL


def test_a_score_at_a_kl_is_interpolated_and_has_an_interval_over_seeds():
    curves = [([0, 2, 1], [0.2, 0.4, 0.3]), ([0, 2], [0.2, 0.6]), ([0, 1], [0.2, 0.3])]
    assert interpolate(curves[0], [0.5, 1.5, 3]) == pytest.approx([0.25, 0.35, np.nan], nan_ok=True)
    found = estimate_at(curves, 1.5)  # the third does not reach it
    assert found.mean == pytest.approx((0.35 + 0.5) / 2) and found.seeds == 2
    assert estimate_at(curves, 5).seeds == 0
    gap = compare_at(dict(enumerate(curves)), {0: curves[1], 2: curves[2], 7: curves[0]}, 1)
    assert gap.mean == pytest.approx((0.3 - 0.4 + 0.0) / 2) and gap.seeds == 2

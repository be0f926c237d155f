"""Which of many entries are told apart, and the least difference that could have been.

Many comparisons find differences by chance alone: of 100 pairs of equal entries, five have
p < 0.05. Holm's correction keeps the probability of even one such error at 5%, whatever the
comparisons share (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
Journal of Statistics 6, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import networkx
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from alignzoo_compare.statistics.behrens_fisher import (
    FINE_NODES,
    Array,
    chi_squared_nodes,
    critical_distance,
    node_weights,
)
from alignzoo_compare.statistics.intervals import (
    ALPHA,
    Interval,
    MeanVariance,
    average_tasks,
    bound_by_rest,
    check_scores,
    estimate_difference,
)

POWER = 0.8


@dataclass(frozen=True)
class Ranking:
    """All pairs of K entries compared.

    `difference[i, j]` is the mean of entry i minus that of entry j, `p_value[i, j]` Holm-corrected
    over all pairs, `apart[i, j]` whether it is below 5%. An entry's rank is between `rank_low`, 1 +
    the number of entries told to be better, and `rank_high`, K - the number told to be worse. All
    these intervals hold the true ranks with a probability of 95%. `groups` are the largest sets of
    entries of which no two are told apart, best first; an entry may be in several.
    """

    mean: Array
    difference: Array
    p_value: Array
    apart: NDArray[np.bool_]
    rank_low: NDArray[np.int_]
    rank_high: NDArray[np.int_]
    groups: tuple[tuple[int, ...], ...]


def rank_entries(tasks: Sequence[Array]) -> Ranking:
    """Compare all pairs of entries by their mean over tasks; each task is scores [K, S, I].

    All entries have the same seeds and items. With one task it is the ranking on that task.
    """
    differences = average_tasks([split_pair_variance(scores) for scores in tasks])
    mean = np.mean([np.mean(scores, axis=(-2, -1)) for scores in tasks], axis=0)
    pairs = np.triu_indices(len(mean), 1)
    p_value = np.ones((len(mean), len(mean)))
    p_value[pairs] = p_value.T[pairs] = correct_by_holm(differences.p_value)
    difference = mean[:, None] - mean
    apart = p_value < ALPHA
    return Ranking(
        mean,
        difference,
        p_value,
        apart,
        rank_low=1 + (apart & (difference < 0)).sum(1),
        rank_high=len(mean) - (apart & (difference > 0)).sum(1),
        groups=find_groups(apart, mean),
    )


def split_pair_variance(scores: Array) -> MeanVariance:
    """Return the paired differences of all pairs i < j of entries, shape [K (K - 1) / 2].

    Scores are [K, S, I]. The pairs are in the order of `numpy.triu_indices(K, 1)`. As
    `split_variance` of the differences, faster: the variance of a difference is that of both minus
    twice their covariance.
    """
    scores = np.asarray(scores, float)
    check_scores(scores)
    count, seeds, items = scores.shape
    mean, by_seed, by_item = scores.mean((-2, -1)), scores.mean(-1), scores.mean(-2)
    v_items = spread_of_pairs(by_item - mean[:, None]) / ((items - 1) * items)
    v_seeds = v_rest = np.zeros_like(v_items)
    if seeds > 1:
        v_seeds = spread_of_pairs(by_seed - mean[:, None]) / ((seeds - 1) * seeds)
        rest = scores - by_seed[..., None] - by_item[:, None] + mean[:, None, None]
        ms_rest = spread_of_pairs(rest.reshape(count, -1)) / ((seeds - 1) * (items - 1))
        v_rest = ms_rest / (seeds * items)
        v_items = np.maximum(v_items - v_rest, 0)
    i, j = np.triu_indices(count, 1)
    df = np.ones_like(v_items)
    degrees = df * max(seeds - 1, 1), df * (items - 1)
    return MeanVariance(mean[i] - mean[j], v_seeds, v_items, v_rest, *degrees)


def spread_of_pairs(deviations: Array) -> Array:
    """Return the sums of squares of the differences of all pairs of rows of `deviations` [K, n]."""
    i, j = np.triu_indices(len(deviations), 1)
    products = deviations @ deviations.T
    squares = np.diag(products)
    spread = squares[i] + squares[j] - 2 * products[i, j]
    # Rows that are equal leave a rounding error, which is no spread.
    return np.where(spread > 1e-12 * (squares[i] + squares[j]), spread, 0)


def correct_by_holm(p_values: Array) -> Array:
    """Return p-values [n] corrected for being n, by Holm's method.

    They are those of statsmodels' `multipletests`, which collects the garbage of the whole program
    at each call: more than a second once torch is loaded, and a report makes dozens of calls.
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(steps, 1)
    return corrected


def find_groups(apart: NDArray[np.bool_], mean: Array) -> tuple[tuple[int, ...], ...]:
    """Return the largest sets of entries of which no two are `apart` [K, K], by their best mean.

    They are what a compact letter display gives one letter each (Piepho 2004): the maximal cliques
    of the graph of the pairs that are not told apart. Entries in a group are ordered by mean.
    """
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(mean)))
    graph.add_edges_from(pair for pair in combinations(range(len(mean)), 2) if not apart[pair])
    place = {int(entry): place for place, entry in enumerate(np.argsort(-mean, kind="stable"))}
    groups = [sorted(clique, key=place.__getitem__) for clique in networkx.find_cliques(graph)]
    return tuple(sorted(map(tuple, groups), key=lambda group: [place[i] for i in group]))


def least_detectable_difference(
    variances: MeanVariance, comparisons: int = 1, power: float = POWER
) -> float:
    """Return the difference that the test finds with probability `power`.

    The variances are those of the paired differences that were measured, as `split_pair_variance`
    returns them; their mean is taken as the true one. Holm's method tests the first of so many
    `comparisons` at 5% divided by their number, and no later one more strictly.
    """
    v_seeds, v_items = variances.seeds.mean(), variances.items.mean()
    if v_seeds + v_items == 0:
        return 0.0
    df_seeds, df_items = float(variances.df_seeds.min()), float(variances.df_items.min())
    # What is asked of a difference varies with the estimate of the first variance; the second is
    # nearly known.
    estimates = v_seeds * chi_squared_nodes(df_seeds, FINE_NODES)
    bounded = bound_by_rest(estimates, v_items, variances.rest.mean())
    asked = critical_distance(*bounded, df_seeds, df_items, ALPHA / comparisons)
    weights, deviation = node_weights(FINE_NODES), np.sqrt(v_seeds + v_items)

    def lack_of_power(difference: float) -> float:
        found = ndtr((difference - asked) / deviation) + ndtr((-difference - asked) / deviation)
        return float(found @ weights) - power

    return float(brentq(lack_of_power, 0, asked.max() + 10 * deviation))


def compare_with(scores: Array, control: Array) -> list[Interval]:
    """Return the paired differences of entries [K, S, I] to a control [S, I], p-values by Holm.

    The control is the base, for example, or `sft`, and is not among the entries. The intervals are
    not corrected: each covers with 95%.
    """
    differences = [estimate_difference(entry, control) for entry in scores]
    corrected = correct_by_holm(np.array([each.p_value for each in differences]))
    return [replace(each, p_value=float(p)) for each, p in zip(differences, corrected, strict=True)]

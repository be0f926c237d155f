"""The best of n by hand, and the bound of its KL against the exact KL."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from alignzoo_zoo.best_of_n.selection import best_index, kl_bound

NAN, INF = float("nan"), float("inf")


def test_the_best_of_each_group():
    rewards = torch.tensor([[0.0, 2.0, 1.0], [NAN, 1.0, 1.0], [NAN, NAN, NAN], [NAN, -INF, NAN]])
    assert best_index(rewards).tolist() == [1, 1, 0, 1]


def kl_of_best(p: list[float], n: int) -> float:
    """Sum over all samples of n words with ascending rewards: the last word wins."""
    chosen = [0.0] * len(p)
    for draw in itertools.product(range(len(p)), repeat=n):
        chosen[max(draw)] += math.prod(p[word] for word in draw)
    return sum(q * math.log(q / base) for q, base in zip(chosen, p, strict=True))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_kl_is_below_the_bound_and_close_to_it_if_samples_rarely_repeat(n):
    few, many = [0.7, 0.2, 0.1], [1 / 20] * 20
    assert kl_of_best(few, n) <= kl_bound(n) + 1e-12
    assert kl_of_best(many, n) == pytest.approx(kl_bound(n), abs=0.05)
    assert kl_bound(1) == 0.0


def test_the_bound_by_hand():
    assert kl_bound(2) == pytest.approx(math.log(2) - 0.5)
    assert kl_bound(8) == pytest.approx(1.2044415)  # 2.0794415 - 0.875

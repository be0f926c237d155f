"""pass@k and votes, against numbers by hand."""

from itertools import combinations

import pytest

from alignzoo.evaluation.samples import choose_by_vote, pass_at_k, powers_up_to


@pytest.mark.parametrize(
    ("right", "samples", "k", "expected"),
    [(0, 4, 2, 0.0), (4, 4, 1, 1.0), (1, 4, 1, 0.25), (1, 4, 2, 0.5), (2, 5, 3, 0.9)],
)
def test_pass_at_k_by_hand(right, samples, k, expected):
    assert pass_at_k(right, samples, k) == pytest.approx(expected)


@pytest.mark.parametrize("right", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_pass_at_k_counts_the_sets_with_a_right_sample(right, k):
    samples = [True] * right + [False] * (5 - right)
    sets = list(combinations(samples, k))
    assert pass_at_k(right, 5, k) == pytest.approx(sum(map(any, sets)) / len(sets))


@pytest.mark.parametrize(("right", "samples", "k"), [(5, 4, 1), (-1, 4, 1), (1, 4, 5), (1, 4, 0)])
def test_pass_at_k_of_impossible_counts_is_refused(right, samples, k):
    with pytest.raises(ValueError, match="no estimate"):
        pass_at_k(right, samples, k)


def test_the_most_frequent_answer_wins_and_of_equals_the_first():
    assert choose_by_vote(["7", "42", "42"]) == 1
    assert choose_by_vote(["7", "42", "42", "7"]) == 0
    assert choose_by_vote([None, None, "3"]) == 2  # no answer has no vote
    assert choose_by_vote([None, None]) == 0


def test_the_k_of_pass_at_k():
    assert powers_up_to(1) == []
    assert powers_up_to(2) == [2]
    assert powers_up_to(8) == [2, 4, 8]
    assert powers_up_to(10) == [2, 4, 8, 10]

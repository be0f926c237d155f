"""What several samples of one prompt say: pass@k, and the answer that most of them give."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Return the probability that one of k samples is right, if `right` of `samples` are.

        1 - C(samples - right, k) / C(samples, k)

    the unbiased estimate of Chen et al. 2021, https://arxiv.org/abs/2107.03374, equation 1: of all
    sets of k samples it counts those with a right one. Raise `ValueError` for more than there are.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"{right} of {samples} samples right leave no estimate at k = {k}")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def choose_by_vote(answers: Sequence[Hashable | None]) -> int:
    """Return the index of the first sample with the answer that most samples give.

    It is the self-consistency of Wang et al. 2022, https://arxiv.org/abs/2203.11171. None is no
    answer and has no vote; of answers with equally many votes, the one that came first wins.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0
    winner = votes.most_common(1)[0][0]  # of equal counts, the first that was met
    return answers.index(winner)


def powers_up_to(samples: int) -> list[int]:
    """Return 2, 4, 8, ... up to `samples`, which is in the list itself: the k of pass@k."""
    found = [2**power for power in range(1, samples.bit_length()) if 2**power < samples]
    return [*found, samples] if samples > 1 else []

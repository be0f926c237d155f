"""The maths of judging, on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

Pair = tuple[float, float]


def normalised(logprobs: Sequence[float]) -> list[float]:
    """p_i = exp(l_i) / sum_j exp(l_j): the options' log-probs (nats) as probabilities that sum to
    1; NaN for all where one is NaN or none is possible."""
    top = max(logprobs)
    if any(x != x for x in logprobs) or top == -math.inf:
        return [math.nan] * len(logprobs)
    weights = [math.exp(x - top) for x in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def both_orders(one: Sequence[float], other: Sequence[float]) -> Pair:
    """P(a better), P(b better), averaged over the two orders in which they can be shown.

    `one` is the answer [P(first better), P(second better)] with a shown first, `other` with b
    first: P(a) = (one_1 + other_2) / 2 and P(b) = (one_2 + other_1) / 2. A judge's leaning to a
    place adds to one order what it takes from the other. To call a b and b a swaps the arguments,
    and so the results, exactly.
    """
    return (one[0] + other[1]) / 2, (one[1] + other[0]) / 2


def disagree(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the orders name different ones as better: the same place is favoured in both. An
    even answer is on neither side."""
    return (one[0] - one[1]) * (other[0] - other[1]) > 0


def agreement(better: float, worse: float) -> float:
    """1 where the one that people chose is found better, 0 where the other is, 1/2 for a tie."""
    return 0.5 if better == worse else float(better > worse)


def expected(probabilities: Sequence[float], values: Sequence[float]) -> float:
    """sum_i p_i v_i"""
    return math.fsum(p * v for p, v in zip(probabilities, values, strict=True))


def between(share: float, n: int) -> list[float]:
    """Probabilities over n equal steps from 0 to 1 whose mean is `share`, on the two steps around
    it; a share outside of [0, 1] counts as the nearer end."""
    place = min(max(share, 0.0), 1.0) * (n - 1)
    low = min(int(place), n - 2)
    return [max(0.0, 1 - abs(place - i)) if i in (low, low + 1) else 0.0 for i in range(n)]


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r; NaN where one of them does not vary."""
    n = len(x)
    if n < 2:
        return math.nan
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    xx = math.fsum((a - mean_x) ** 2 for a in x)
    yy = math.fsum((b - mean_y) ** 2 for b in y)
    xy = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan

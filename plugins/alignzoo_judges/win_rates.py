"""How often a completion is preferred to the others of its group, by a judge of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from alignzoo_judges.compare import QUESTION, Comparison, compare
from alignzoo_judges.judge import Judge


def win_rates(
    judge: Judge,
    rows: Sequence[dict[str, Any]],
    groups: Sequence[Sequence[str]],
    question: str = QUESTION,
) -> list[list[float]]:
    """The mean over the others of P(it is better), in [0, 1], for each completion of each group.

    All pairs of a row's completions are compared, in both orders. Two that are the same text are
    even, and nobody is asked. A comparison without an answer is left out of the mean; a completion
    of which none was answered has NaN.
    """
    pairs = [
        (b, i, j)
        for b, texts in enumerate(groups)
        for i, j in combinations(range(len(texts)), 2)
        if texts[i] != texts[j]
    ]
    comparisons = [
        Comparison(rows[b]["prompt"], groups[b][i], groups[b][j], rows[b]) for b, i, j in pairs
    ]
    tables = [[[0.5] * len(texts) for _ in texts] for texts in groups]
    for (b, i, j), verdict in zip(pairs, compare(judge, comparisons, question), strict=True):
        tables[b][i][j], tables[b][j][i] = verdict.label
    return [[mean_of_others(row, i) for i, row in enumerate(table)] for table in tables]


def mean_of_others(probabilities: Sequence[float], own: int) -> float:
    """The mean of all but that one's, NaN left out; NaN where nothing is left."""
    known = [p for i, p in enumerate(probabilities) if i != own and p == p]
    return math.fsum(known) / len(known) if known else math.nan

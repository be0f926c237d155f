"""A judge without a model, for checks and tests of what asks one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from alignzoo_judges.judge import Judge, Question


class TableJudge(Judge):
    """Prefers and rates completions by a hash of their text."""

    identity = None  # nothing to cache

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """Yield the probabilities of the options of each question."""
        for i, question in enumerate(questions):
            scores = [score(text) for text in question.completions] or [0.5]
            if len(scores) == len(question.options):
                yield i, [each / sum(scores) for each in scores]
            else:
                rest = (1 - scores[0]) / max(len(question.options) - 1, 1)
                yield i, [scores[0], *[rest] * (len(question.options) - 1)]


def score(text: str) -> float:
    """Return a number between 0.1 and 1.1 that depends on a text alone."""
    return 0.1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32

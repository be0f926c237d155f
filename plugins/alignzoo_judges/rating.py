"""Ratings: how good a single completion is, from 1 to 10.

Direct RLAIF: the score is the judge's expected rating, mapped to [-1, 1]. Lee et al. 2023,
https://arxiv.org/abs/2309.00267.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignzoo_judges.comparison import format_content
from alignzoo_judges.judge import Judge, Question

RATING_QUESTION = "How good is the response?"
LOWEST, HIGHEST = 1, 10
RATINGS = tuple(range(LOWEST, HIGHEST + 1))


def rate(
    judge: Judge,
    answered: Sequence[tuple[dict[str, Any], str]],
    question: str | Sequence[str] = RATING_QUESTION,
) -> list[float]:
    """Return a score in [-1, 1] for each row and completion of its prompt, NaN without an answer.

    `question` is one text for all of them, or a list with one for each.
    """
    questions = [question] * len(answered) if isinstance(question, str) else question
    answers = judge.ask(
        [
            build_rating_question(row, text, asked)
            for (row, text), asked in zip(answered, questions, strict=True)
        ]
    )
    return [score_rating(probabilities) for probabilities in answers]


def score_rating(probabilities: Sequence[float]) -> float:
    """Return 2 (E[rating] - 1) / 9 - 1, with E[rating] = sum_r p_r r over the ratings 1 to 10."""
    expected = math.fsum(p * r for p, r in zip(probabilities, RATINGS, strict=True))
    return 2 * (expected - LOWEST) / (HIGHEST - LOWEST) - 1


def build_rating_question(row: dict[str, Any], completion: str, question: str) -> Question:
    """Show the prompt and the completion, and ask for a number."""
    text = (
        f"Here is a conversation, and a response to its last message.\n\n"
        f"[Conversation]\n{format_content(row['prompt'])}\n\n[Response]\n{completion.strip()}\n\n"
        f"{question} Rate it from {LOWEST} to {HIGHEST}, where {HIGHEST} is best. "
        "Answer with the number alone."
    )
    options = tuple(map(str, RATINGS))
    return Question([{"role": "user", "content": text}], options, row, (completion,))

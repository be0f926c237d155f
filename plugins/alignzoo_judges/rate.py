"""How good a completion is, without another beside it.

Direct RLAIF: the judge rates from 1 to 10, and the score is the mean over its probabilities of the
ratings, mapped to [-1, 1]. Lee et al. 2023, https://arxiv.org/abs/2309.00267.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo_judges.compare import written
from alignzoo_judges.judge import Judge, Question
from alignzoo_judges.numbers import expected

QUESTION = "How good is the response?"
LOWEST, HIGHEST = 1, 10
RATINGS = tuple(range(LOWEST, HIGHEST + 1))


def rate(
    judge: Judge,
    answered: Sequence[tuple[dict[str, Any], str]],
    question: str | Sequence[str] = QUESTION,
) -> list[float]:
    """A score in [-1, 1] for each completion of a row's prompt; NaN where it was not answered.

    `question` is asked of all, or there is one for each.
    """
    questions = [question] * len(answered) if isinstance(question, str) else question
    found = judge.ask(
        [question_of(row, text, q) for (row, text), q in zip(answered, questions, strict=True)]
    )
    return [score(probabilities) for probabilities in found]


def score(probabilities: Sequence[float]) -> float:
    """2 (E[rating] - 1) / 9 - 1, with E[rating] = sum_r p_r r over the ratings 1 to 10."""
    return 2 * (expected(probabilities, RATINGS) - LOWEST) / (HIGHEST - LOWEST) - 1


def question_of(row: dict[str, Any], completion: str, question: str) -> Question:
    text = (
        f"Here is a conversation, and a response to its last message.\n\n"
        f"[Conversation]\n{written(row['prompt'])}\n\n[Response]\n{completion.strip()}\n\n"
        f"{question} Rate it from {LOWEST} to {HIGHEST}, where {HIGHEST} is best. "
        "Answer with the number alone."
    )
    options = tuple(map(str, RATINGS))
    return Question([{"role": "user", "content": text}], options, row, (completion,))

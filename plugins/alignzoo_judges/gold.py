"""The task's own score as a judge: for studies of what judging is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignzoo_judges.judge import Judge, Question, unusable
from alignzoo_judges.numbers import between


class Gold(Judge):
    """Knows the better of two completions, and rates one by its score in [0, 1].

    Two of one score are equally good; a question about neither one nor two is unusable. It writes
    nothing.
    """

    def __init__(self, task: Any):
        self.task = task

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        for number, question in enumerate(questions):
            yield number, self.answer(question)

    def answer(self, question: Question) -> list[float]:
        scores = [float(self.task.score(question.row, text)) for text in question.completions]
        if len(scores) == 1:
            return between(scores[0], len(question.options))
        if len(scores) == 2 == len(question.options):
            first, second = scores
            return [0.5, 0.5] if first == second else [float(first > second), float(second > first)]
        return unusable(question)

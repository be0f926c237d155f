"""Whoever answers questions with given options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignzoo.judges.question import Question

if TYPE_CHECKING:
    from alignzoo.ledger import Ledger


class Judge(ABC):
    """Answers by a probability for each option; NaN for all where its answer was none of them.

    `identity` is all that its answers depend on besides the question: they are kept under it, and
    None says that they are not worth keeping. `ledger`, where there is one, counts what it spends.
    """

    identity: str | None = None
    ledger: Ledger | None = None

    @abstractmethod
    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """The number of a question and its answer, each as soon as it is known."""

    def ask(self, questions: Sequence[Question]) -> list[list[float]]:
        """The probabilities of each question's options, which sum to 1, or are all NaN."""
        if self.ledger is not None:
            self.ledger.use_feedback("judge_calls", len(questions))
        found = dict(self.answers(questions))
        return [found[number] for number in range(len(questions))]

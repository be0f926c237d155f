"""Whoever answers questions with given options, and writes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from alignzoo.data.dialogue import Message
from alignzoo.errors import BadInput

if TYPE_CHECKING:
    from alignzoo.ledger import Ledger


class Judge(ABC):
    """Answers by a probability for each option; NaN for all where its answer was none of them.
    Most can also write what comes next in a dialogue.

    `identity` is all that its answers depend on besides the question: they are kept under it, and
    None says that they are not worth keeping. `ledger`, where there is one, counts what it spends.
    """

    identity: str | None = None
    ledger: Ledger | None = None

    @abstractmethod
    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """The number of a question and its answer, each as soon as it is known."""

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        """The number of a dialogue and its next turn, each as soon as it is known; an empty text
        where none could be written. Of two dialogues that are the same the turns are as well."""
        raise BadInput(
            f"this judge answers questions, and writes nothing: {type(self).__name__.lower()}",
            hint="name a model or a server as the judge",
        )

    def ask(self, questions: Sequence[Question]) -> list[list[float]]:
        """The probabilities of each question's options, which sum to 1, or are all NaN."""
        if self.ledger is not None:
            self.ledger.use_feedback("judge_calls", len(questions))
        found = dict(self.answers(questions))
        return [found[number] for number in range(len(questions))]

    def write(self, dialogues: Sequence[list[Message]], max_new_tokens: int) -> list[str]:
        """The next turn of each dialogue, which is the likeliest token by token; an empty text
        where the judge wrote none, which is no answer. `BadInput` of a judge that cannot write."""
        if self.ledger is not None:
            self.ledger.use_feedback("judge_calls", len(dialogues))
        found = dict(self.texts(dialogues, max_new_tokens))
        return [found[number] for number in range(len(dialogues))]


@dataclass(frozen=True)
class Question:
    """Messages that end in a question, and the options of which its answer is one.

    `row` and `completions` are what it is about, for a judge that reads no words: the gold score.
    Options are texts that a model would answer with as they stand: "A", "B".
    """

    messages: list[dict[str, str]]
    options: tuple[str, ...]
    row: dict[str, Any] = field(default_factory=dict, compare=False)
    completions: tuple[str, ...] = field(default=(), compare=False)

    def key(self, judge: str) -> str:
        """What an answer is kept under: a hash of who was asked, what, and with which options."""
        return sha256(json.dumps([judge, self.messages, self.options]).encode()).hexdigest()


def as_messages(prompt: str | list[dict[str, str]]) -> list[dict[str, str]]:
    """A prompt as a dialogue: text is what the user said."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


UNUSABLE = float("nan")  # as the probability of each option: there was no answer among them


def unusable(question: Question) -> list[float]:
    return [UNUSABLE] * len(question.options)


def is_usable(answer: list[float]) -> bool:
    return all(p == p for p in answer)

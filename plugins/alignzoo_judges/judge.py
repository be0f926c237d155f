"""A question with options, the interface of judges, and the gold score as a judge."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from numbers import Real
from typing import Any, Generic, NamedTuple, TypeVar

from alignzoo.data import Content, Message, score_by_task
from alignzoo.errors import BadInput
from alignzoo.faults import Blame, PluginMethod
from alignzoo.ledger import Cost, Ledger

T = TypeVar("T")
TOLERANCE = 0.01  # of a sum of probabilities, which may be rounded


@dataclass(frozen=True)
class Question:
    """Messages that end in a question, and the possible answers to it.

    Options are texts that a model answers with as they are: "A", "B". `row` and `completions` are
    what the question is about, for a judge that reads no text: the gold score.
    """

    messages: list[Message]
    options: tuple[str, ...]
    row: dict[str, Any] = field(default_factory=dict, compare=False)
    completions: tuple[str, ...] = field(default=(), compare=False)

    def key(self, judge: str) -> str:
        """Return the cache key of the answer: a hash of the judge's identity and the question."""
        return sha256(json.dumps([judge, self.messages, self.options]).encode()).hexdigest()


class Usage(NamedTuple):
    """What an answer cost to compute: floating-point operations, and tokens read and written."""

    flops: float = 0.0
    read: int = 0
    written: int = 0

    @property
    def cost(self) -> Cost:
        """Return the cost as a ledger counts it."""
        return Cost(self.flops, self.read + self.written)


class Answer(NamedTuple, Generic[T]):
    """The answer to a question, by its index: probabilities or a text, and what it cost."""

    number: int
    value: T
    usage: Usage = Usage()


class Judge(ABC):
    """Answers questions with a probability for each option. Most judges can also write text.

    `identity` is a text of everything that the answers depend on besides the question: the key
    under which they are cached, None if they must not be. `ledger`, if set, is charged for every
    answer. What an answer cost is stored with it, and a cached one is charged the same.
    """

    identity: str | None = None
    ledger: Ledger | None = None

    @property
    def writes_text(self) -> bool:
        """Return True if this judge can also write text."""
        return type(self).texts is not Judge.texts

    @abstractmethod
    def answers(
        self, questions: Sequence[Question]
    ) -> Iterator[Answer[list[float]] | tuple[int, list[float]]]:
        """Yield the index of each question and the probabilities of its options, in any order.

        They are NaN if the judge chose none of the options; see `unusable`. An answer that costs
        compute or tokens is yielded as an `Answer`, with its usage.
        """

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[Answer[str] | tuple[int, str]]:
        """Yield the index of each dialogue and its next turn, in any order, as `answers` does.

        The text is empty if none could be written. Identical dialogues get identical replies.
        """
        raise BadInput(
            f"this judge answers questions but cannot write text: {type(self).__name__}",
            hint="name a model or a server as the judge",
        )

    def ask(self, questions: Sequence[Question]) -> list[list[float]]:
        """Return the probabilities of each question's options: their sum is 1, or all are NaN."""
        return self._charge(self.checked_answers(questions), len(questions))

    def write(self, dialogues: Sequence[list[Message]], max_new_tokens: int) -> list[str]:
        """Return the next turn of each dialogue, decoded greedily; "" if the judge wrote none.

        Raise `BadInput` if this judge cannot write.
        """
        return self._charge(self.checked_texts(dialogues, max_new_tokens), len(dialogues))

    def checked_answers(self, questions: Sequence[Question]) -> Iterator[Answer[list[float]]]:
        """Yield what `answers` does, and raise `RunFailed` that names the judge for a wrong one."""
        place = PluginMethod.of(f"judge {type(self).__name__!r}", self, self.answers)
        asked = len(questions)
        for answer in check_numbers(place, lambda: self.answers(questions), asked):
            check_probabilities(place, answer.value, questions[answer.number].options)
            yield answer

    def checked_texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[Answer[str]]:
        """Yield what `texts` does, and raise `RunFailed` that names the judge for a wrong one."""
        place = PluginMethod.of(f"judge {type(self).__name__!r}", self, self.texts)
        write = partial(self.texts, dialogues, max_new_tokens)
        for answer in check_numbers(place, write, len(dialogues)):
            if not isinstance(answer.value, str):
                raise place.fail(f"gave {answer.value!r:.200} instead of a text")
            yield answer

    def price(self, usage: Usage) -> float:
        """Return what an answer costs in money."""
        return 0.0

    def _charge(self, answers: Iterable[Answer[T]], count: int) -> list[T]:
        """Return the values of `count` answers in the order of the questions, and charge them.

        The order matters, because a sum of floating-point numbers depends on it.
        """
        by_number = {answer.number: answer for answer in answers}
        ordered = [by_number[i] for i in range(count)]
        if self.ledger is not None:
            self.ledger.use_feedback("judge_calls", count)
            for answer in ordered:
                self.ledger.charge("judge", answer.usage.cost)
                self.ledger.pay(self.price(answer.usage))
        return [answer.value for answer in ordered]


def check_numbers(
    place: PluginMethod, ask: Callable[[], Iterable[Answer[T] | tuple[int, T]]], count: int
) -> Iterator[Answer[T]]:
    """Yield a judge's answers. Raise `RunFailed` unless each of `count` questions gets one."""
    with Blame(place):
        answers = iter(ask())
    missing = set(range(count))
    while True:
        with Blame(place):
            each = next(answers, None)
            answer: Answer[T] | None = None if each is None else Answer(*each)
        if answer is None:
            break
        if answer.number not in missing:
            raise place.fail(f"gave a second answer, or one to no question: {answer.number!r}")
        missing.remove(answer.number)
        yield answer
    if missing:
        raise place.fail(f"gave no answer to question {min(missing)} of {count}")


def check_probabilities(
    place: PluginMethod, found: Sequence[float], options: Sequence[str]
) -> None:
    """Raise `RunFailed` unless a judge gave the probability of each option, or NaN for all."""
    wrong = f"gave {found!r:.200} for the options {', '.join(options)}"
    if not isinstance(found, Sequence) or not all(isinstance(p, Real) for p in found):
        raise place.fail(f"{wrong}: not a list of numbers")
    if len(found) != len(options):
        raise place.fail(f"{wrong}: {len(found)} numbers")
    if all(map(math.isnan, found)):
        return
    if not all(0 <= p <= 1 for p in found) or abs(math.fsum(found) - 1) > TOLERANCE:
        raise place.fail(
            f"{wrong}: they are not probabilities",
            hint="they are from 0 to 1 and their sum is 1, or all are NaN if no option was chosen",
        )


class GoldJudge(Judge):
    """The task's own score in [0, 1] as a judge, to study what a judge can contribute at best.

    It prefers the completion with the higher score, calls equal scores a tie, and rates by the
    score. A question about more than two completions, or none, is unusable.
    """

    def __init__(self, task: Any):
        self.task = task

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """Yield the answers by the score of each completion."""
        for i, question in enumerate(questions):
            yield i, self.answer(question)

    def answer(self, question: Question) -> list[float]:
        """Return the probabilities of one question's options."""
        scores = [score_by_task(self.task, question.row, text) for text in question.completions]
        if len(scores) == 1:
            return interpolate(scores[0], len(question.options))
        if len(scores) == 2 == len(question.options):
            first, second = scores
            return [0.5, 0.5] if first == second else [float(first > second), float(second > first)]
        return unusable(question)


def as_messages(prompt: Content) -> list[Message]:
    """Return a prompt as messages: plain text becomes a message of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def unusable(question: Question) -> list[float]:
    """Return NaN for each option: the judge answered with none of them."""
    return [math.nan] * len(question.options)


def is_usable(answer: Sequence[float]) -> bool:
    """Return True unless any probability is NaN."""
    return not any(math.isnan(p) for p in answer)


def normalise(logprobs: Sequence[float]) -> list[float]:
    """Turn the options' log-probs into probabilities: p_i = exp(l_i) / sum_j exp(l_j).

    All are NaN if any log-prob is NaN or no option is possible.
    """
    highest = max(logprobs)
    if any(map(math.isnan, logprobs)) or highest == -math.inf:
        return [math.nan] * len(logprobs)
    weights = [math.exp(x - highest) for x in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def interpolate(score: float, n: int) -> list[float]:
    """Return probabilities over n evenly spaced values from 0 to 1 whose mean is `score`.

    Only the two values next to the score have any; a score outside [0, 1] is clipped.
    """
    position = min(max(score, 0.0), 1.0) * (n - 1)
    low = min(int(position), n - 2)
    return [max(0.0, 1 - abs(position - i)) if i in (low, low + 1) else 0.0 for i in range(n)]

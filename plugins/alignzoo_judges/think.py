"""An answer after an explanation: chain of thought, in two steps.

The judge first writes what speaks for an answer, and is then asked for it in a further turn: the
probabilities of its options are those given its own explanation. Lee et al. 2023, section 2.2,
https://arxiv.org/abs/2309.00267.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alignzoo_judges.judge import Judge, Question, unusable


def ask_after_thinking(
    judge: Judge, questions: Sequence[Question], last: Sequence[str], think: int
) -> list[list[float]]:
    """The answers to questions whose messages ask for an explanation of at most `think` tokens,
    each asked for by the words of `last`; NaN where no explanation was written."""
    written = judge.write([question.messages for question in questions], think)
    answers = [unusable(question) for question in questions]
    explained = [number for number, text in enumerate(written) if text]
    found = judge.ask([after(questions[i], written[i], last[i]) for i in explained])
    for number, answer in zip(explained, found, strict=True):
        answers[number] = answer
    return answers


def after(question: Question, explanation: str, last: str) -> Question:
    """The same dialogue with the explanation, and the question for the answer."""
    turns = [{"role": "assistant", "content": explanation}, {"role": "user", "content": last}]
    return replace(question, messages=[*question.messages, *turns])

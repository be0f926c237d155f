"""Classification: which label a prompt or a completion has, asked in both orders of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_judges.comparison import ask_with_thinking, format_content
from alignzoo_judges.judge import Judge, Question, is_usable

LABEL_QUESTION = "Which label fits it?"


@dataclass(frozen=True)
class Labelling:
    """The probabilities of the labels, with the labels listed first to last, and last to first.

    Both lists are in the order of the labels.
    """

    forth: list[float]
    back: list[float]

    @property
    def usable(self) -> bool:
        """Return True if both orders were answered."""
        return is_usable(self.forth) and is_usable(self.back)

    @property
    def probabilities(self) -> list[float]:
        """Return the mean over both orders."""
        return [(a + b) / 2 for a, b in zip(self.forth, self.back, strict=True)]

    @property
    def flips(self) -> bool:
        """Return True if the most likely label depends on the order."""
        return most_likely(self.forth).isdisjoint(most_likely(self.back))

    @property
    def first(self) -> float:
        """Return P(the label listed first), averaged over both orders."""
        return (self.forth[0] + self.back[-1]) / 2


def most_likely(probabilities: Sequence[float]) -> set[int]:
    """Return the indices with the highest probability: more than one if they are tied."""
    return {i for i, p in enumerate(probabilities) if p == max(probabilities)}


def classify(
    judge: Judge,
    rows: Sequence[dict[str, Any]],
    labels: Sequence[str],
    question: str = LABEL_QUESTION,
    *,
    think: int = 0,
) -> list[Labelling]:
    """Label each row's `prompt`, or its `completion` if it has one."""
    questions, answer_requests = [], []
    for row in rows:
        for listed in (labels, labels[::-1]):
            choice = f"{', '.join(listed[:-1])} or {listed[-1]}"
            answer = f"{question} Answer with {choice} alone."
            explain = f"{question} Explain which one, {choice}, and why."
            questions.append(build_label_question(row, explain if think else answer, labels))
            answer_requests.append(answer)
    answers = ask_with_thinking(judge, questions, answer_requests, think)
    return [Labelling(*answers[i : i + 2]) for i in range(0, len(answers), 2)]


def build_label_question(row: dict[str, Any], request: str, labels: Sequence[str]) -> Question:
    """Show the prompt, and the completion if there is one, and add the request."""
    prompt, completion = format_content(row["prompt"]), row.get("completion")
    if completion is None:
        subject = f"Here is a request.\n\n[Request]\n{prompt}"
    else:
        subject = (
            "Here is a conversation, and a response to its last message.\n\n"
            f"[Conversation]\n{prompt}\n\n[Response]\n{format_content(completion)}"
        )
    return Question([{"role": "user", "content": f"{subject}\n\n{request}"}], tuple(labels), row)

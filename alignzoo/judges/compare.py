"""Which of two completions of a prompt is better, asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.judges.judge import Judge
from alignzoo.judges.numbers import Pair, both_orders, disagree
from alignzoo.judges.question import Question, is_usable

QUESTION = "Which response is better?"
OPTIONS = ("A", "B")


@dataclass(frozen=True)
class Comparison:
    """A prompt with two completions, as text or messages; `row` is for the gold score alone."""

    prompt: str | list[dict[str, str]]
    a: str | list[dict[str, str]]
    b: str | list[dict[str, str]]
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answers [P(first better), P(second better)] with a shown first, and with b first."""

    a_first: list[float]
    b_first: list[float]

    @property
    def usable(self) -> bool:
        """Whether both orders were answered: one alone has the bias of its place."""
        return is_usable(self.a_first) and is_usable(self.b_first)

    @property
    def label(self) -> Pair:
        """P(a better), P(b better), over both orders; NaN where one has no answer."""
        return both_orders(self.a_first, self.b_first)

    @property
    def flips(self) -> bool:
        """Whether the two orders disagree on which is better."""
        return disagree(self.a_first, self.b_first)


def compare(
    judge: Judge, comparisons: Sequence[Comparison], question: str = QUESTION
) -> list[Verdict]:
    """Both orders of each comparison, judged by a question or a principle."""
    asked = [
        question_of(c, question, swapped=swapped) for c in comparisons for swapped in (False, True)
    ]
    found = judge.ask(asked)
    return [Verdict(*found[i : i + 2]) for i in range(0, len(found), 2)]


def question_of(c: Comparison, question: str, *, swapped: bool) -> Question:
    first, second = (c.b, c.a) if swapped else (c.a, c.b)
    text = (
        f"Here is a conversation, and two responses to its last message.\n\n"
        f"[Conversation]\n{written(c.prompt)}\n\n"
        f"[Response A]\n{written(first)}\n\n[Response B]\n{written(second)}\n\n"
        f"{question} Answer with A or B alone."
    )
    return Question(
        [{"role": "user", "content": text}], OPTIONS, c.row, (written(first), written(second))
    )


def written(content: str | list[dict[str, str]]) -> str:
    """Text as it is, one answer by its content, a dialogue by turns."""
    if isinstance(content, str):
        return content.strip()
    if len(content) == 1 and content[0]["role"] == "assistant":
        return content[0]["content"].strip()
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content'].strip()}" for m in content)

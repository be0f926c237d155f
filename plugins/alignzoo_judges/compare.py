"""Which of two completions of a prompt is better, asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo_judges.judge import Judge, Question, is_usable
from alignzoo_judges.numbers import Pair, both_orders, disagree
from alignzoo_judges.think import ask_after_thinking

QUESTION = "Which response is better?"
OPTIONS = ("A", "B")
EXPLAIN, ANSWER = "Explain which one, and why.", "Answer with A or B alone."


@dataclass(frozen=True)
class Comparison:
    """A prompt with two completions, as text or messages; `row` is for the gold score alone.

    `question` is what these two are judged by, a principle say; None: what all are judged by.
    """

    prompt: str | list[dict[str, str]]
    a: str | list[dict[str, str]]
    b: str | list[dict[str, str]]
    row: dict[str, Any] = field(default_factory=dict)
    question: str | None = None


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
    judge: Judge, comparisons: Sequence[Comparison], question: str = QUESTION, *, think: int = 0
) -> list[Verdict]:
    """Both orders of each comparison, judged by a question or a principle.

    With `think` the judge writes an explanation of at most that many tokens first, one for each
    order. To call a b and b a asks the very same questions in the very same order, and so swaps the
    verdict exactly.
    """
    swapped = [written(c.a) > written(c.b) for c in comparisons]
    asked, last = [], []
    for c, is_swapped in zip(comparisons, swapped, strict=True):
        by = c.question or question
        for swap in (is_swapped, not is_swapped):
            asked.append(question_of(c, f"{by} {EXPLAIN if think else ANSWER}", swapped=swap))
            last.append(f"{by} {ANSWER}")
    found = ask_after_thinking(judge, asked, last, think) if think else judge.ask(asked)
    pairs = [found[i : i + 2] for i in range(0, len(found), 2)]
    return [
        Verdict(*reversed(pair)) if is_swapped else Verdict(*pair)
        for pair, is_swapped in zip(pairs, swapped, strict=True)
    ]


def question_of(c: Comparison, request: str, *, swapped: bool) -> Question:
    first, second = (c.b, c.a) if swapped else (c.a, c.b)
    text = (
        f"Here is a conversation, and two responses to its last message.\n\n"
        f"[Conversation]\n{written(c.prompt)}\n\n"
        f"[Response A]\n{written(first)}\n\n[Response B]\n{written(second)}\n\n"
        f"{request}"
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

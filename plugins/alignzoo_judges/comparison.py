"""Comparisons: which of two completions is better, asked in both orders; win rates in a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from alignzoo.data import Content
from alignzoo_judges.judge import Judge, Question, is_usable, unusable

COMPARISON_QUESTION = "Which response is better?"
COMPARISON_OPTIONS = ("A", "B")
EXPLAIN, ANSWER = "Explain which one, and why.", "Answer with A or B alone."

Pair = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A prompt with two completions, each as text or messages.

    `question` is asked about this pair in place of the common one. Only the gold score reads `row`.
    """

    prompt: Content
    a: Content
    b: Content
    row: dict[str, Any] = field(default_factory=dict)
    question: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The answers [P(first is better), P(second is better)], with a first and with b first."""

    a_first: list[float]
    b_first: list[float]

    @property
    def usable(self) -> bool:
        """Return True if both orders were answered; one alone has a position bias."""
        return is_usable(self.a_first) and is_usable(self.b_first)

    @property
    def label(self) -> Pair:
        """Return P(a is better) and P(b is better) over both orders, or NaN."""
        return average_orders(self.a_first, self.b_first)

    @property
    def flips(self) -> bool:
        """Return True if the preference flips with the order."""
        return prefers_one_position(self.a_first, self.b_first)


def compare(
    judge: Judge,
    comparisons: Sequence[Comparison],
    question: str = COMPARISON_QUESTION,
    *,
    think: int = 0,
) -> list[Verdict]:
    """Ask about each comparison in both orders.

    With `think` the judge first writes an explanation of at most that many tokens for each order.
    Swapping a and b leads to the same questions in the same order, so it swaps the verdict exactly.
    """
    swapped = [format_content(c.a) > format_content(c.b) for c in comparisons]
    questions, answer_requests = [], []
    for c, is_swapped in zip(comparisons, swapped, strict=True):
        text = c.question or question
        for swap in (is_swapped, not is_swapped):
            request = f"{text} {EXPLAIN if think else ANSWER}"
            questions.append(build_comparison_question(c, request, swapped=swap))
            answer_requests.append(f"{text} {ANSWER}")
    answers = ask_with_thinking(judge, questions, answer_requests, think)
    pairs = [answers[i : i + 2] for i in range(0, len(answers), 2)]
    return [
        Verdict(*reversed(pair)) if is_swapped else Verdict(*pair)
        for pair, is_swapped in zip(pairs, swapped, strict=True)
    ]


def build_comparison_question(c: Comparison, request: str, *, swapped: bool) -> Question:
    """Show the completions as A and B, the second one first if `swapped`, and add the request."""
    first, second = (c.b, c.a) if swapped else (c.a, c.b)
    completions = (format_content(first), format_content(second))
    text = (
        f"Here is a conversation, and two responses to its last message.\n\n"
        f"[Conversation]\n{format_content(c.prompt)}\n\n"
        f"[Response A]\n{completions[0]}\n\n[Response B]\n{completions[1]}\n\n"
        f"{request}"
    )
    return Question([{"role": "user", "content": text}], COMPARISON_OPTIONS, c.row, completions)


def format_content(content: Content) -> str:
    """Return text as it is, a single answer as its content, and a dialogue turn by turn."""
    if isinstance(content, str):
        return content.strip()
    if len(content) == 1 and content[0]["role"] == "assistant":
        return str(content[0]["content"]).strip()
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content'].strip()}" for m in content)


def average_orders(a_first: Sequence[float], b_first: Sequence[float]) -> Pair:
    """Return P(a is better) and P(b is better), averaged over the two orders.

    `a_first` is [P(first is better), P(second is better)] with a shown first, `b_first` with b
    first: P(a) = (a_first_1 + b_first_2) / 2 and P(b) = (a_first_2 + b_first_1) / 2. What position
    bias adds in one order it takes away in the other. Swapping a and b swaps the results exactly.
    """
    return (a_first[0] + b_first[1]) / 2, (a_first[1] + b_first[0]) / 2


def prefers_one_position(a_first: Sequence[float], b_first: Sequence[float]) -> bool:
    """Return True if both orders prefer the same position; a tie prefers neither."""
    return (a_first[0] - a_first[1]) * (b_first[0] - b_first[1]) > 0


def ask_with_thinking(
    judge: Judge, questions: Sequence[Question], answer_requests: Sequence[str], think: int
) -> list[list[float]]:
    """Answer questions after an explanation of at most `think` tokens, or at once if that is 0.

    The messages of a question ask for the explanation; the judge writes it, and is then asked for
    the answer with the words of `answer_requests`, in a further turn of the same dialogue. An
    answer is NaN if no explanation was written. This is the two-step chain of thought of Lee et
    al. 2023, section 2.2, https://arxiv.org/abs/2309.00267.
    """
    if not think:
        return judge.ask(questions)
    texts = judge.write([question.messages for question in questions], think)
    answers = [unusable(question) for question in questions]
    explained = [i for i, text in enumerate(texts) if text]
    asked = [append_explanation(questions[i], texts[i], answer_requests[i]) for i in explained]
    for i, answer in zip(explained, judge.ask(asked), strict=True):
        answers[i] = answer
    return answers


def append_explanation(question: Question, explanation: str, request: str) -> Question:
    """Return the dialogue continued by the explanation and the request for the answer."""
    turns = [{"role": "assistant", "content": explanation}, {"role": "user", "content": request}]
    return replace(question, messages=[*question.messages, *turns])


def win_rates(
    judge: Judge,
    rows: Sequence[dict[str, Any]],
    groups: Sequence[Sequence[str]],
    question: str = COMPARISON_QUESTION,
) -> list[list[float]]:
    """Return each completion's mean of P(it is better) over the others of its group, in [0, 1].

    All pairs of a row's completions are compared in both orders. Identical texts are a tie, which
    costs no call. A comparison without an answer is left out of the mean; a completion with no
    answer at all gets NaN.
    """
    pairs = [
        (b, i, j)
        for b, texts in enumerate(groups)
        for i, j in combinations(range(len(texts)), 2)
        if texts[i] != texts[j]
    ]
    comparisons = [
        Comparison(rows[b]["prompt"], groups[b][i], groups[b][j], rows[b]) for b, i, j in pairs
    ]
    tables = [[[0.5] * len(texts) for _ in texts] for texts in groups]
    for (b, i, j), verdict in zip(pairs, compare(judge, comparisons, question), strict=True):
        tables[b][i][j], tables[b][j][i] = verdict.label
    return [[average_others(row, i) for i, row in enumerate(table)] for table in tables]


def average_others(probabilities: Sequence[float], own: int) -> float:
    """Return the mean of all but the `own`th, without NaN; NaN if nothing is left."""
    known = [p for i, p in enumerate(probabilities) if i != own and not math.isnan(p)]
    return math.fsum(known) / len(known) if known else math.nan

"""Laws for judges: an answer to each question, by that question alone, and what it costs.

from alignzoo_judges.testing import JudgeSuite

class TestMine(JudgeSuite):
    plugin = "mine"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook

from alignzoo import load_task
from alignzoo.ledger import Ledger
from alignzoo.testing import Broken, NotApplicable, Subject, Suite, add_kind, law, require_same
from alignzoo_judges.comparison import Comparison, Verdict, compare
from alignzoo_judges.judge import Answer, Judge, Question, is_usable
from alignzoo_judges.resolve import POLICY, SELF, is_plugin, make_judge

TOLERANCE = 2e-4  # of a probability: a model rounds in another order, and a judge may round too
SUM_TOLERANCE = 2e-3  # of the sum of up to 20 rounded probabilities
MOST_TOKENS = 12  # of a text that is written
TASK = "sums"
REPLIES = ("The answer is 5.", "5", "I think it is 6.", "", "No idea!\n\n" + "Sorry. " * 40)


@dataclass
class JudgeSubject(Subject):
    """A judge without a cache, and a ledger for what it spends."""

    kind = "judges"

    @property
    def is_class(self) -> bool:
        """Return whether the judge is a plugin, and not a model, a server or one of the run's."""
        return is_plugin(self.name)

    @cached_property
    def cls(self) -> type:
        """Return the class of the judge."""
        return super().cls if self.is_class else type(self.plugin)

    @property
    def all_options(self) -> dict[str, Any]:
        """Return the options to check with."""
        return super().all_options if self.is_class else dict(self.options)

    @cached_property
    def plugin(self) -> Judge:
        """Return the judge."""
        run = self.prepare_run("dpo") if self.name in (SELF, POLICY) else None
        options = {name: str(value) for name, value in self.all_options.items()}
        judge = make_judge(self.name, options, run, load_task(TASK), False)
        judge.ledger = run.ledger if run is not None else Ledger()
        return judge

    def start(self) -> None:
        """Ask a first question."""
        self.plugin.ask(self.questions[:1])

    @cached_property
    def questions(self) -> list[Question]:
        """Return questions about one completion and about two, with 2 to 20 options."""
        row = {"prompt": "What is 2 + 3?", "a": 2, "b": 3}
        found = [
            ask(f"Which is the answer to 2 + 3?\n\nA: {a}\n\nB: {b}", ("A", "B"), row, (a, b))
            for a, b in pairwise(REPLIES)
        ]
        for count in (2, 3, 10, 20):
            options = tuple(map(str, range(1, count + 1)))
            found.append(ask(f"Rate it: {REPLIES[0]}", options, row, REPLIES[:1]))
        found.append(ask("Is 5 a digit?", ("yes", "no"), row, REPLIES[:1]))
        return found

    def answers(self, questions: Sequence[Question]) -> list[list[float]]:
        """Return the probabilities of each question's options."""
        return self.plugin.ask(questions)

    def observe(self) -> list[list[float]]:
        """Return the answers to the usual questions."""
        return self.answers(self.questions)


def ask(
    text: str, options: tuple[str, ...], row: dict[str, Any], completions: tuple[str, ...]
) -> Question:
    """Return a text as a question."""
    return Question([{"role": "user", "content": text}], options, dict(row), completions)


def require_equal(one: list[float], other: list[float], what: str) -> None:
    """Raise `Broken` if two answers differ; NaN equals NaN."""
    for p, q in zip(one, other, strict=True):
        if math.isnan(p) != math.isnan(q) or abs(p - q) > TOLERANCE:
            raise Broken(f"a probability is {p:.4g}, and {q:.4g} {what}")


def judge_law(name: str, *, says: str, cause: str, hook: str = "answers") -> Callable[[Any], Any]:
    """Register the decorated function as the check of a law for judges."""
    return law("judges", name, says=says, cause=cause, hook=hook)


def collect(given: Iterator[Any], count: int) -> list[Answer[Any]]:
    """Return the answers in the order of the questions; raise `Broken` if one is missing."""
    found = [Answer(*each) for each in given]
    numbers = sorted(answer.number for answer in found)
    if numbers != list(range(count)):
        raise Broken(f"{count} questions have answers with the numbers {numbers}")
    return sorted(found, key=lambda answer: answer.number)


@judge_law(
    "each question",
    says="each question has one answer, in whatever order the answers come",
    cause="a question that is left out if it cannot be answered: yield `unusable(question)`",
)
def check_each_question(subject: JudgeSubject) -> None:
    """Collect the answers to some questions, to one that stands there twice, and to none."""
    collect(subject.plugin.answers(subject.questions), len(subject.questions))
    twice = [subject.questions[0], *subject.questions[:2]]
    answers = collect(subject.plugin.answers(twice), len(twice))
    require_equal(answers[0].value, answers[1].value, "to the same question")
    collect(subject.plugin.answers([]), 0)


@judge_law(
    "probabilities",
    says="there is a probability for each of 2 to 20 options, with the sum 1, or all are NaN",
    cause="log-probs, scores or a label in place of probabilities; `normalise` makes them",
)
def check_probabilities(subject: JudgeSubject) -> None:
    """Look at the probabilities of the usual questions."""
    for question, answer in zip(subject.questions, subject.observe(), strict=True):
        options = len(question.options)
        if len(answer) != options:
            raise Broken(f"{len(answer)} probabilities for {options} options")
        if not is_usable(answer):
            if not all(map(math.isnan, answer)):
                raise Broken(f"some probabilities of {options} options are NaN, and others are not")
            continue
        if not all(0 <= p <= 1 for p in answer) or abs(sum(answer) - 1) > SUM_TOLERANCE:
            shown = ", ".join(f"{p:.4g}" for p in answer)
            raise Broken(f"the probabilities of {options} options are {shown}")


@judge_law(
    "other questions",
    says="an answer does not depend on the questions beside it, nor on their order",
    cause="padding that is attended to, scores that are compared with those of the batch, or a "
    "state on `self`",
)
def check_other_questions(subject: JudgeSubject) -> None:
    """Ask each question alone, and all of them in another order."""
    usual = subject.observe()
    turned = subject.answers(subject.questions[::-1])[::-1]
    for question, one, other in zip(subject.questions, usual, turned, strict=True):
        require_equal(one, other, "in another order")
        require_equal(one, subject.answers([question])[0], "alone")


@judge_law(
    "swapped pairs",
    says="`compare` asks in both orders, so that swapping two completions swaps the verdict",
    cause="answers that depend on what was asked before, or that are cached by a part of the "
    "question",
)
def check_swapped(subject: JudgeSubject) -> None:
    """Compare pairs, and the same pairs swapped."""
    row = subject.questions[0].row
    pairs = [(a, b) for a in REPLIES[:3] for b in REPLIES[:3]]
    one = compare(subject.plugin, [Comparison(row["prompt"], a, b, row) for a, b in pairs])
    other = compare(subject.plugin, [Comparison(row["prompt"], b, a, row) for a, b in pairs])
    for verdict, swapped in zip(one, other, strict=True):
        require_same(verdict, Verdict(swapped.b_first, swapped.a_first), "swapping a pair")


@judge_law(
    "texts",
    says="each dialogue has one next turn, and the same dialogue the same one",
    cause="sampling in place of greedy decoding, or a dialogue that is left out: yield an empty "
    "text",
    hook="texts",
)
def check_texts(subject: JudgeSubject) -> None:
    """Have the next turns of some dialogues written, twice."""
    if type(subject.plugin).texts is Judge.texts:
        raise NotApplicable("the judge writes no texts")
    dialogues = [question.messages for question in subject.questions[:3]]
    dialogues.append(dialogues[0])
    found = [
        [each.value for each in collect(subject.plugin.texts(dialogues, MOST_TOKENS), 4)]
        for _ in range(2)
    ]
    if not all(isinstance(text, str) for text in found[0]):
        raise Broken("a next turn is no text")
    if found[0][0] != found[0][3] or found[0] != found[1]:
        raise Broken("the same dialogue has another next turn the second time")


@judge_law(
    "usage",
    says="each question is a call in the ledger, and what it costs is charged",
    cause="answers without `Usage(flops, read, written)`, or `ask` without a charge",
)
def check_usage(subject: JudgeSubject) -> None:
    """Compare the calls and the costs in the ledger with what was asked and computed."""
    judge = subject.plugin
    assert judge.ledger is not None
    calls, flops = judge.ledger.feedback["judge_calls"], judge.ledger.total_flops
    with counted_passes() as passes:
        judge.ask(subject.questions)
    asked = judge.ledger.feedback["judge_calls"] - calls
    if asked != len(subject.questions):
        raise Broken(f"{len(subject.questions)} questions were {asked} calls")
    if passes and not judge.ledger.total_flops > flops:
        raise Broken("a model was computed, and no FLOPs are charged")
    for answer in collect(judge.answers(subject.questions), len(subject.questions)):
        usage = answer.usage
        if not all(math.isfinite(x) and x >= 0 for x in usage):
            raise Broken(f"an answer has the {usage}")


@contextmanager
def counted_passes() -> Iterator[list[str]]:
    """Collect the classes of modules with weights of their own that are computed in the block."""
    passes: list[str] = []

    def count(module: torch.nn.Module, *_: Any) -> None:
        if next(module.parameters(recurse=False), None) is not None:
            passes.append(type(module).__name__)

    handle = register_module_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


@judge_law(
    "identity",
    says="a judge with an identity, whose answers are cached, always gives the same ones",
    cause="an identity of a judge that samples, or one without an option that changes the answers",
    hook="identity",
)
def check_identity(subject: JudgeSubject) -> None:
    """Ask again, and ask another object of the same judge."""
    identity = subject.plugin.identity
    if identity is None:
        raise NotApplicable("the judge has no identity, so that nothing is cached")
    if not isinstance(identity, str) or not identity:
        raise Broken(f"the identity is {identity!r}, not a text")
    other = subject.fresh()
    if other.plugin.identity != identity:
        raise Broken("another object of the same judge has another identity")
    again, usual = subject.observe(), subject.observe()
    for one, two, three in zip(usual, again, other.observe(), strict=True):
        require_equal(one, two, "when it is asked again")
        require_equal(one, three, "of another object")


@judge_law(
    "kept questions",
    says="questions are not changed",
    cause="question.messages.append(...)",
)
def check_kept_questions(subject: JudgeSubject) -> None:
    """Compare questions with copies made before."""
    kept = deepcopy(subject.questions)
    subject.observe()
    for question, copy in zip(subject.questions, kept, strict=True):
        if (question.messages, question.options, question.row) != (
            copy.messages, copy.options, copy.row,
        ):  # fmt: skip
            raise Broken("a question has been changed")


class JudgeSuite(Suite):
    """The laws for judges."""

    kind = "judges"


add_kind("judges", JudgeSubject)

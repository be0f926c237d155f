"""Laws for rewards: one number for each completion, by that completion and its row alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from alignzoo.batch import Batch, Example
from alignzoo.data import Prompts
from alignzoo.discovery import FUNCTION
from alignzoo.files import json_lines, write_text
from alignzoo.rewards import TASK, score_completions
from alignzoo.rollout import Completion, batch_completions
from alignzoo.testing.laws import Broken, law
from alignzoo.testing.odd_texts import ODD_TEXTS
from alignzoo.testing.subject import Subject

SCORE_TOLERANCE = 1e-5  # of a score, as a fraction of the largest: a model rounds in another order
CHECK_ROWS = "check_rows"  # the attribute of a reward: rows with the columns that it reads
USUAL_ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"What is {a} + {b}?",
        "a": a,
        "b": b,
        "answer": str(a + b),
        "tests": [f"assert {a} + {b} == total"],
        "completion": f"total = {a + b}",
    }
    for a, b in ((2, 3), (40, 17), (9, 9))
]
USUAL_TEXTS = ("The answer is 5.", "I think it is 57, or 18.", "<think> 9 + 9 </think> 18")


@dataclass
class RewardSubject(Subject):
    """A reward in a run that has drawn a few completions."""

    kind = "rewards"

    @property
    def all_options(self) -> dict[str, Any]:
        """Return the options to check with; a function and a task's score have none."""
        named = self.name == TASK or self.name.startswith(FUNCTION)
        return dict(self.options) if named else super().all_options

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return rows with the columns that the reward reads."""
        return list(deepcopy(getattr(self.cls, CHECK_ROWS, USUAL_ROWS)))

    @cached_property
    def run(self) -> Any:
        """Return a run with this reward."""
        path = self.folder / "rows.jsonl"
        write_text(path, json_lines([{**row, "id": i} for i, row in enumerate(self.rows)]))
        return self.prepare_run("grpo", reward=[self.text], data=str(path))

    def start(self) -> None:
        """Prepare the run. Raise `Broken` if the reward applies to no completion."""
        if all(map(math.isnan, self.observe())):
            raise Broken(f"no completion has a score: state {CHECK_ROWS} to which it applies")

    def groups(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Return rows, each with the same completions and one of its own."""
        return [
            (row, [str(row.get("completion", row.get("answer", "yes"))), *USUAL_TEXTS])
            for row in self.rows[:3]
        ]

    def batch(self, groups: Sequence[tuple[dict[str, Any], Sequence[str]]]) -> Batch:
        """Return completions of rows as a batch."""
        codec = self.run.codec
        rows = [Prompts.canonical(deepcopy(row)) for row, _ in groups]
        drawn = [
            [codec.completion(row["prompt"], text) for text in texts]
            for row, (_, texts) in zip(rows, groups, strict=True)
        ]
        return batch_completions(
            [Example(codec.prompt(row["prompt"]), [], row=row) for row in rows],
            [[Completion(ids, [-1.0] * len(ids), True) for ids in group] for group in drawn],
        )

    def score(self, groups: Sequence[tuple[dict[str, Any], Sequence[str]]]) -> list[float]:
        """Return the score of each completion, row after row."""
        (scores,) = score_completions(self.run, self.batch(groups)).values()
        return scores.tolist()

    def observe(self) -> list[float]:
        """Return the scores of the usual completions."""
        return self.score(self.groups())


def require_equal(usual: Sequence[float], other: Sequence[float], what: str) -> None:
    """Raise `Broken` if two lists of scores differ; NaN equals NaN."""
    scale = max((abs(x) for x in usual if not math.isnan(x)), default=0.0) or 1.0
    for i, (one, two) in enumerate(zip(usual, other, strict=True)):
        if math.isnan(one) != math.isnan(two) or abs(one - two) > SCORE_TOLERANCE * scale:
            raise Broken(f"completion {i} has the score {one:.6g}, and {two:.6g} {what}")


def reward_law(name: str, *, says: str, cause: str) -> Callable[[Any], Any]:
    """Register the decorated function as the check of a law for rewards."""
    return law("rewards", name, says=says, cause=cause, hook="alignzoo_reward")


@reward_law(
    "one score",
    says="there is one score for each completion, a finite number below 1e18, or NaN",
    cause="a list in place of a tensor, a score for each prompt, or a division by 0",
)
def check_one_score(subject: RewardSubject) -> None:
    """Look at the shape and the size of the scores."""
    batch = subject.batch(subject.groups())
    (found,) = subject.run.hook.alignzoo_reward(run=subject.run, batch=batch)
    if not isinstance(found, torch.Tensor):
        raise Broken(f"alignzoo_reward returns a {type(found).__name__}, not a tensor")
    if found.requires_grad or found.is_complex():
        raise Broken(f"the scores are {found.dtype} and require_grad is {found.requires_grad}")
    score_completions(subject.run, batch)


@reward_law(
    "repeated score",
    says="a completion that is scored twice has the same score",
    cause="random numbers, or a counter or an average on `self`",
)
def check_repeated_score(subject: RewardSubject) -> None:
    """Score a batch twice."""
    require_equal(subject.observe(), subject.observe(), "when it is scored again")


@reward_law(
    "order of completions",
    says="the order of rows and of completions has no effect",
    cause="a score by its place in the batch, or scores in another order than the batch",
)
def check_score_order(subject: RewardSubject) -> None:
    """Turn the order of the rows and of the completions of each."""
    turned = [(row, texts[::-1]) for row, texts in reversed(subject.groups())]
    require_equal(subject.observe(), subject.score(turned)[::-1], "in another order")


@reward_law(
    "neighbours",
    says="a completion has the same score alone as beside others",
    cause="a mean or a standard deviation of the batch, which is the algorithm's to take; or a "
    "cache by the prompt alone",
)
def check_score_neighbours(subject: RewardSubject) -> None:
    """Score each completion alone."""
    alone = [
        s for row, texts in subject.groups() for t in texts for s in subject.score([(row, [t])])
    ]
    require_equal(subject.observe(), alone, "alone")


@reward_law(
    "kept rows",
    says="neither the rows nor the batch are changed",
    cause="row.pop(...), row[...] = ..., or an in-place operation on a column",
)
def check_rows_kept(subject: RewardSubject) -> None:
    """Compare a batch and its rows with copies made before."""
    batch = subject.batch(subject.groups())
    kept = deepcopy(batch)
    score_completions(subject.run, batch)
    if batch.rows != kept.rows:
        raise Broken("a row has been changed")
    for name in ("prompts", "tokens", "lengths", "mask", "group"):
        if not torch.equal(getattr(batch, name), getattr(kept, name)):
            raise Broken(f"batch.{name} has been changed")
    for name, column in kept.columns.items():
        if name not in batch.columns or not torch.equal(batch[name], column):
            raise Broken(f"the column {name!r} has been changed")


@reward_law(
    "odd completions",
    says="a completion that is empty, very long, or of odd characters has a score as well",
    cause="text[0], an empty mean, int() of thousands of digits, or a regular expression that "
    "takes for ever",
)
def check_odd_completions(subject: RewardSubject) -> None:
    """Score odd completions, alone and together."""
    row = subject.rows[0]
    for what, text in ODD_TEXTS.items():
        try:
            subject.score([(row, [text])])
        except Exception as error:
            raise Broken(f"{what}: {type(error).__name__}: {error}") from error
    subject.score([(row, list(ODD_TEXTS.values()))])


@reward_law(
    "conversational rows",
    says="a row whose prompt is a list of messages has a score as well as one with a text",
    cause='row["prompt"] that is taken for a text; `alignzoo.data` has `Content` for either',
)
def check_conversations(subject: RewardSubject) -> None:
    """Score rows with their prompts as messages, and as text."""
    for as_messages in (True, False):
        groups = [
            ({**row, "prompt": convert(row["prompt"], as_messages)}, texts)
            for row, texts in subject.groups()
        ]
        subject.score(groups)
    first, texts = subject.groups()[0]
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    subject.score([({**first, "prompt": [*turns, *convert(first["prompt"], True)]}, texts)])


def convert(prompt: Any, as_messages: bool) -> Any:
    """Return a prompt as messages, or as the text of its last message."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}] if as_messages else prompt
    return prompt if as_messages else prompt[-1]["content"]

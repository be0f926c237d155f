"""Select what is shown: a step, the best or the worst, and answers before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from alignzoo import BadInput
from alignzoo_view.read import DrawnCompletion, EvaluatedCompletion

Row = TypeVar("Row")
Order = Literal["best", "worst"]
MOST_STEPS = 100  # whose completions are on a page


@dataclass
class StepSummary:
    """The completions of one step in numbers: means over those that were written down."""

    step: int
    completions: int
    reward: float | None
    length: float
    ended: float


@dataclass
class AnswerPair:
    """The answers to a held-out prompt in the first and in the last evaluation."""

    item: int
    prompt: str
    before: EvaluatedCompletion
    after: EvaluatedCompletion

    @property
    def change(self) -> float | None:
        """Return the score after training minus the score before; None without scores."""
        if self.before.score is None or self.after.score is None:
            return None
        return self.after.score - self.before.score


@dataclass
class Selection:
    """What is shown: means of every step, completions of some, and answers to held-out prompts."""

    steps: list[StepSummary]
    drawn: dict[int, list[DrawnCompletion]]
    pairs: list[AnswerPair]


def select_drawn(
    rows: Sequence[DrawnCompletion],
    step: int | None,
    order: Order | None,
    count: int,
    *,
    every_step: bool,
) -> dict[int, list[DrawnCompletion]]:
    """Return `count` completions of a step, or else of the last one or, evenly spaced, of each.

    Raise `BadInput` if there are none of the step that was asked for.
    """
    steps = list_steps(rows)
    if step is not None:
        require_step(step, steps)
        chosen = [step]
    else:
        chosen = spread(steps, MOST_STEPS) if every_step else steps[-1:]
    return {
        one: take([row for row in rows if row.step == one], lambda row: row.reward, order, count)
        for one in chosen
    }


def require_step(step: int, steps: Sequence[int]) -> None:
    """Raise `BadInput` unless a step has completions."""
    if step not in steps:
        listed = ", ".join(map(str, spread(steps, 10))) or "none"
        raise BadInput(
            f"option --step: no completions of step {step} were written down",
            hint=f"there are those of steps {listed}; `run --rollouts-every 1` writes each round",
        )


def list_steps(rows: Sequence[DrawnCompletion]) -> list[int]:
    """Return the steps that have completions, in order."""
    return sorted({row.step for row in rows})


def spread(values: Sequence[Row], most: int) -> list[Row]:
    """Return at most that many of the values, evenly spaced, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def summarise_steps(rows: Sequence[DrawnCompletion]) -> list[StepSummary]:
    """Return the means of each step that has completions."""
    by_step: dict[int, list[DrawnCompletion]] = {}
    for row in rows:
        by_step.setdefault(row.step, []).append(row)
    return [
        StepSummary(
            step,
            len(found),
            mean([row.reward for row in found if row.reward is not None]),
            mean([row.length for row in found]) or 0.0,
            mean([row.ended for row in found]) or 0.0,
        )
        for step, found in sorted(by_step.items())
    ]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of no values."""
    return math.fsum(values) / len(values) if values else None


def pair_answers(rows: Sequence[EvaluatedCompletion]) -> list[AnswerPair]:
    """Return the answers of the first and the last evaluation to each prompt that both have."""
    phases = list(dict.fromkeys(row.phase for row in rows))  # in the order of the file
    if len(phases) < 2:
        return []
    before, after = (
        {row.item: row for row in rows if row.phase == phase} for phase in (phases[0], phases[-1])
    )
    return [
        AnswerPair(item, row.prompt, before[item], row)
        for item, row in after.items()
        if item in before
    ]


def take(
    rows: Sequence[Row], value: Callable[[Row], float | None], order: Order | None, count: int
) -> list[Row]:
    """Return the first `count` rows, or those with the highest or lowest values.

    Rows without a value come last.
    """
    if order is None:
        return list(rows[:count])
    sign = -1 if order == "best" else 1

    def key(row: Row) -> float:
        found = value(row)
        return math.inf if found is None or math.isnan(found) else sign * found

    return sorted(rows, key=key)[:count]

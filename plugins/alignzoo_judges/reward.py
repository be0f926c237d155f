"""The reward `judge`: a rating of each completion, its win rate within its group, or a rubric."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import torch
from torch import Tensor

from alignzoo import BadInput, Batch, Run, hookimpl
from alignzoo.data import Data
from alignzoo_judges import (
    Judge,
    ModelOptions,
    ServerOptions,
    check_judge,
    rate,
    resolve_judge,
    win_rates,
)
from alignzoo_judges.rubric import apply_rubrics, check_rubrics, rubric_of, weigh_marks


@dataclass(eq=False)
class JudgeReward(ServerOptions, ModelOptions):
    """a judge's expected rating from 1 to 10, mapped to [-1, 1]; with pairs=true a win rate; with
    rubric=COLUMN the weighted share of criteria that are met"""

    judge: Annotated[str, "self, gold, a model or run, or a server at http://HOST:PORT/v1"] = "self"
    question: Annotated[str | None, "question about a completion, or about a pair"] = None
    pairs: Annotated[bool, "reward the win rate among completions of a prompt, in [0, 1]"] = False
    rubric: Annotated[str | None, "column with the weighted criteria of each prompt"] = None

    resolved: Judge | None = field(default=None, init=False)
    logged: list[str] = field(default_factory=list, init=False)  # names of criteria

    def __post_init__(self) -> None:
        check_judge(self.name)
        if self.rubric is not None and (self.pairs or self.question is not None):
            other = "pairs" if self.pairs else "question"
            raise BadInput(
                f"reward 'judge': option 'rubric' has its own questions, and no {other!r}",
                hint="leave out one of them",
            )

    @property
    def known_exceptions(self) -> dict[str, str]:
        """Return the laws of `alignzoo check` that do not hold, with the reason."""
        reason = "a win rate compares a completion with the others of its prompt"
        return {"neighbours": reason} if self.pairs else {}

    @property
    def name(self) -> str:
        """Return the judge with the options that differ from their defaults."""
        options = [*fields(ServerOptions), *fields(ModelOptions)]
        values = [(option.name, getattr(self, option.name), option.default) for option in options]
        return ",".join(
            [self.judge, *(f"{name}={value}" for name, value, usual in values if value != usual)]
        )

    @hookimpl
    def alignzoo_check(self, data: Data) -> None:
        """Refuse a column that holds anything but rubrics."""
        if self.rubric is not None:
            self.logged = check_rubrics((example.row for example in data.train), self.rubric)

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Load the judge, or connect to it."""
        self.resolved = resolve_judge(self.name, run=run, task=run.task)
        if self.rubric is not None and not self.resolved.writes_text:
            raise BadInput(
                f"judge {self.judge!r} compares and rates, but writes no text: it cannot answer a "
                "rubric",
                hint="name a model or a server as the judge",
            )

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the scores, `[N]`, NaN if the judge gave no answer."""
        assert self.resolved is not None  # set by alignzoo_start
        question = [self.question] if self.question is not None else []  # else the usual one
        texts = run.texts(batch)
        if self.pairs:
            rates = win_rates(self.resolved, batch.rows, batch.grouped(texts), *question)
            return torch.tensor([rate for group in rates for rate in group])
        answered = list(zip(batch.answered(), texts, strict=True))
        if self.rubric is not None:
            return self.score_rubrics(run, answered, self.rubric)
        return torch.tensor(rate(self.resolved, answered, *question))

    def score_rubrics(
        self, run: Run, answered: list[tuple[dict[str, Any], str]], column: str
    ) -> Tensor:
        """Return the weighted share of each completion, `[N]`, and log the criteria by name.

        It is NaN for a row without a rubric, and if a criterion got no answer.
        """
        assert self.resolved is not None  # set by alignzoo_start
        rubrics = [rubric_of(row, column) for row, _ in answered]
        scores = torch.full([len(answered)], math.nan)
        met = {name: torch.full([len(answered)], math.nan) for name in self.logged}
        for i, marks in enumerate(apply_rubrics(self.resolved, answered, rubrics)):
            rubric = rubrics[i]
            if rubric is None or marks is None:
                continue
            scores[i] = weigh_marks(rubric, marks)
            for criterion, mark in zip(rubric, marks, strict=True):
                if criterion.name in met:
                    met[criterion.name][i] = float(mark)
        run.log_mean({f"rubric/{name}": marks for name, marks in met.items()})
        return scores

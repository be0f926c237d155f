"""The reward `judge`: a rating of each completion, or its win rate within its group."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

import torch
from torch import Tensor

from alignzoo import Batch, Run, hookimpl
from alignzoo_judges import (
    Judge,
    ModelOptions,
    ServerOptions,
    check_judge,
    rate,
    resolve_judge,
    win_rates,
)


@dataclass(eq=False)
class JudgeReward(ServerOptions, ModelOptions):
    """a judge's expected rating from 1 to 10, mapped to [-1, 1]; with pairs=true a win rate"""

    judge: Annotated[str, "self, gold, a model or run, or a server at http://HOST:PORT/v1"] = "self"
    question: Annotated[str | None, "question about a completion, or about a pair"] = None
    pairs: Annotated[bool, "reward the win rate among completions of a prompt, in [0, 1]"] = False

    resolved: Judge | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_judge(self.name)

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
    def alignzoo_start(self, run: Run) -> None:
        """Load the judge, or connect to it."""
        self.resolved = resolve_judge(self.name, run=run, task=run.task)

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
        return torch.tensor(rate(self.resolved, answered, *question))

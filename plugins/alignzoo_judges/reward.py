"""What a judge thinks of a completion, by itself or beside the others of its prompt."""

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
    judge_of,
    rate,
    win_rates,
)


@dataclass(eq=False)
class JudgeReward(ServerOptions, ModelOptions):
    """a judge's expected rating from 1 to 10, mapped to [-1, 1], or with pairs=true a win rate"""

    judge: Annotated[str, "self, gold, a model or run, or a server at http://HOST:PORT/v1"] = "self"
    question: Annotated[str | None, "what is asked of the response, or of two of them"] = None
    pairs: Annotated[bool, "how often it is preferred to the others of its prompt, in [0, 1]"] = (
        False
    )

    asked: Judge | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_judge(self.name)

    @property
    def name(self) -> str:
        """The judge with what is said of it."""
        options = [*fields(ServerOptions), *fields(ModelOptions)]
        said = [(option.name, getattr(self, option.name), option.default) for option in options]
        return ",".join(
            [self.judge, *(f"{name}={value}" for name, value, usual in said if value != usual)]
        )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        self.asked = judge_of(self.name, run=run, task=run.task)

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        assert self.asked is not None  # alignzoo_start made it
        asked = [self.question] if self.question is not None else []  # else the judge's own
        if self.pairs:
            groups: list[list[str]] = [[] for _ in batch.rows]
            for b, text in zip(batch.group.tolist(), run.texts(batch), strict=True):
                groups[b].append(text)
            rates = win_rates(self.asked, batch.rows, groups, *asked)
            return torch.tensor([rate for group in rates for rate in group])
        rows = [batch.rows[b] for b in batch.group.tolist()]
        answered = list(zip(rows, run.texts(batch), strict=True))
        return torch.tensor(rate(self.asked, answered, *asked))

"""A plain Python function as a reward, with the signature that TRL's reward functions have."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.discovery import hookimpl, load_function
from alignzoo.errors import AlignzooError, RunFailed
from alignzoo.faults import PluginMethod
from alignzoo.rewards.rows import reward_failure, to_score
from alignzoo.rewards.score import check_scores
from alignzoo.run import Run


class Answered(NamedTuple):
    """A completion as the function sees it, with the row of data that it answers."""

    row: dict[str, Any]
    text: str
    ids: list[int]
    mask: list[bool]


class FunctionReward:
    """The reward `python:module.function`, imported from Python's path or the current folder.

    The function is called with lists that have one entry per completion: `prompts`, `completions`,
    `completion_ids`, `completion_masks` (False for each token that the policy did not write) and
    every column of the rows by its name, as far as it has parameters of these names or `**kwargs`.
    A prompt is as the row has it, a text or messages; a completion is always its text, also in a
    dialogue. It returns a number per completion, or None if the reward does not apply. It may be
    `async`.
    """

    def __init__(self, path: str):
        self.path, self.function = path, load_function(path)
        self.place = PluginMethod.of(f"reward {path!r}", self.function, self.function)
        parameters = inspect.signature(self.function).parameters
        self.accepts = set(parameters)
        self.accepts_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the function's score of each completion, `[N]`.

        Raise `RunFailed` that shows a row and a completion if the function fails.
        """
        ids = batch.completions()
        masks = [mask[: len(own)].tolist() for mask, own in zip(batch.mask, ids, strict=True)]
        completions = list(map(Answered, batch.answered(), run.texts(batch), ids, masks))
        run.ledger.use_feedback("verifier_calls", len(completions))
        try:
            scores = self.call(completions)
        except AlignzooError:
            raise
        except Exception as error:
            raise self.find_failure(error, completions) from error
        found = torch.tensor(scores)
        check_scores(self.place, found, run, batch)
        return found

    def call(self, completions: list[Answered]) -> list[float]:
        """Call the function and return its scores; raise `RunFailed` for a wrong number of them."""
        names = dict.fromkeys(name for each in completions for name in each.row)
        columns = {name: [each.row.get(name) for each in completions] for name in names}
        given = {
            **columns,
            "prompts": [each.row["prompt"] for each in completions],
            "completions": [each.text for each in completions],
            "completion_ids": [each.ids for each in completions],
            "completion_masks": [each.mask for each in completions],
        }
        result = self.function(
            **{name: v for name, v in given.items() if self.accepts_all or name in self.accepts}
        )
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        scores = [to_score(score) for score in result]
        wanted = len(completions)
        if len(scores) != wanted:
            raise self.place.fail(
                f"gave {len(scores)} scores for {wanted} completions",
                hint="it returns a list with one number, or None, for each of `completions`",
            )
        return scores

    def find_failure(self, error: Exception, completions: list[Answered]) -> RunFailed:
        """Return the error for the first completion that fails on its own, else for the first."""
        for each in completions:
            try:
                self.call([each])
            except Exception as alone:
                return reward_failure(self.place, alone, each.row, each.text)
        first = completions[0]
        return reward_failure(self.place, error, first.row, first.text)

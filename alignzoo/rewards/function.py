"""A plain Python function as a reward, with the signature that TRL's reward functions have."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.discovery import hookimpl
from alignzoo.errors import AlignzooError, BadInput, RunFailed
from alignzoo.rewards.rows import reward_failure, to_score
from alignzoo.run import Run


class FunctionReward:
    """The reward `python:module.function`, imported from Python's path or the current folder.

    The function is called with lists that have one entry per completion: `prompts`, `completions`,
    `completion_ids` and every column of the rows by its name, as far as it has parameters of these
    names or `**kwargs`. If the prompt is a list of messages, so is the completion. It returns a
    number per completion, or None if the reward does not apply. It may be `async`.
    """

    def __init__(self, path: str):
        self.path, self.function = path, import_function(path)
        parameters = inspect.signature(self.function).parameters
        self.accepts = set(parameters)
        self.accepts_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the function's score of each completion, `[N]`.

        Raise `RunFailed` that shows a row and a completion if the function fails.
        """
        pairs = list(zip(batch.answered(), run.texts(batch), strict=True))
        ids = batch.completions()
        run.ledger.use_feedback("verifier_calls", len(pairs))
        try:
            scores = self.call(pairs, ids)
        except AlignzooError:
            raise
        except Exception as error:
            raise self.find_failure(error, pairs, ids) from error
        return torch.tensor(scores)

    def call(self, pairs: list[tuple[dict[str, Any], str]], ids: list[list[int]]) -> list[float]:
        """Call the function and return its scores; raise `RunFailed` for a wrong number of them."""
        names = dict.fromkeys(name for row, _ in pairs for name in row)
        columns = {name: [row.get(name) for row, _ in pairs] for name in names}
        given = {
            **columns,
            "prompts": [row["prompt"] for row, _ in pairs],
            "completions": [_completion(row, text) for row, text in pairs],
            "completion_ids": ids,
        }
        result = self.function(
            **{name: v for name, v in given.items() if self.accepts_all or name in self.accepts}
        )
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        scores = [to_score(score) for score in result]
        if len(scores) != len(pairs):
            raise RunFailed(
                f"reward {self.path!r} gave {len(scores)} scores for {len(pairs)} completions",
                hint="it returns a list with one number, or None, for each of `completions`",
            )
        return scores

    def find_failure(
        self, error: Exception, pairs: list[tuple[dict[str, Any], str]], ids: list[list[int]]
    ) -> RunFailed:
        """Return the error for the first completion that fails on its own, else for the first."""
        for pair, tokens in zip(pairs, ids, strict=True):
            try:
                self.call([pair], [tokens])
            except Exception as alone:
                return reward_failure(self.path, alone, *pair)
        return reward_failure(self.path, error, *pairs[0])


def import_function(path: str) -> Callable[..., Any]:
    """Import the function that `module.function` names, or raise `BadInput`."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise BadInput(f"{path!r} does not name a function", hint="write python:module.function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = import_module(module_name)
    except Exception as error:
        raise BadInput(
            f"cannot be imported: {type(error).__name__}: {error}", where=f"module {module_name}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise BadInput(f"there is no function {name!r}", where=f"module {module_name}")
    return function


def _completion(row: dict[str, Any], text: str) -> str | list[dict[str, str]]:
    """Return the completion in the form of the prompt: text, or a list of messages."""
    return text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]

"""Rewards of one completion at a time: by its text and its row of data, or by its environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.data import TURN_REWARDS, score_by_task
from alignzoo.discovery import hookimpl
from alignzoo.errors import AlignzooError, RunFailed
from alignzoo.faults import PluginMethod, describe_example
from alignzoo.run import Run


class RowReward(ABC):
    """A reward that scores one completion at a time. A subclass implements `score`.

    Args:
        workers: completions scored at once, in threads, for a reward that waits for a server.
        runs_code: True if it runs completions as programs, which needs `--allow-code`.
    """

    workers = 1
    runs_code = False

    @abstractmethod
    def score(self, row: dict[str, Any], completion: str) -> float | None:
        """Return the score of a completion of the row's prompt; None if it does not apply."""

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the score of each completion, `[N]`, NaN for None.

        Raise `RunFailed` that shows the row and the completion if `score` fails.
        """
        texts = run.texts(batch)
        run.ledger.use_feedback("verifier_calls", len(texts))
        pairs = list(zip(batch.answered(), texts, strict=True))
        if self.workers == 1:  # math-verify times out by a signal, which needs the main thread
            return torch.tensor([self._score(pair) for pair in pairs])
        with ThreadPoolExecutor(self.workers) as pool:
            return torch.tensor(list(pool.map(self._score, pairs)))

    def _score(self, pair: tuple[dict[str, Any], str]) -> float:
        row, text = pair
        try:
            return to_score(self.score(row, text))
        except AlignzooError:
            raise
        except Exception as error:
            place = PluginMethod.of(f"reward {type(self).__name__.lower()!r}", self, self.score)
            raise reward_failure(place, error, row, text) from error


def to_score(score: Any) -> float:
    """Return a score as a float, NaN for None: the reward does not apply."""
    return float("nan") if score is None else float(score)


def reward_failure(
    place: PluginMethod, error: Exception, row: dict[str, Any], text: str
) -> RunFailed:
    """Return the error for an exception of a reward, with the row and the completion."""
    failure = place.failed(error)
    return RunFailed(failure.problem, where=failure.where, hint=describe_example(row, text))


class TaskReward(RowReward):
    """The score of a task as a reward."""

    def __init__(self, task: Any):
        self.task = task

    def score(self, row: dict[str, Any], completion: str) -> float:
        """Return the task's score of a completion."""
        return score_by_task(self.task, row, completion)


class EnvironmentReward:
    """The sum of the rewards that an environment gave to the turns of an episode."""

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the sum of the rewards of each episode's turns, `[N]`."""
        run.ledger.use_feedback("verifier_calls", len(batch.tokens))
        return batch.total(batch[TURN_REWARDS])

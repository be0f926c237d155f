"""The progress of a run: arithmetic on rows, rounds, steps and FLOPs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from alignzoo.algorithm import Rounds
from alignzoo.ledger import Ledger
from alignzoo.recipe import Recipe


@dataclass
class Schedule:
    """The schedule of a run.

    Args:
        recipe: `steps`, `epochs`, `budget`, `batch_size` and `seed` are read.
        rounds: how the algorithm cuts the data into rounds.
        rows: number of training rows.
        ledger: the FLOPs and the feedback spent, by which a budget ends the run.
        step, round: optimizer steps and rounds done.
        stopped: why the run ends early, None otherwise.
    """

    recipe: Recipe
    rounds: Rounds
    rows: int
    ledger: Ledger = field(default_factory=Ledger)
    step: int = 0
    round: int = 0
    stopped: str | None = None

    @property
    def rows_per_round(self) -> int:
        """Return the number of new rows that a round takes."""
        if self.rounds.rows is None:
            return self.recipe.batch_size
        return self.rows if self.rounds.rows == "all" else self.rounds.rows

    def rows_in(self, index: int) -> int:
        """Return the number of rows a round learns from: its own and those that it replays."""
        return self.rows_per_round * self.rounds.rounds_in(index)

    def steps_in(self, index: int) -> int:
        """Return the number of optimizer steps in a round."""
        rows = min(self.rows_per_round, self.rows) * self.rounds.rounds_in(index)
        return self.rounds.iterations * math.ceil(rows / self.recipe.batch_size)

    @cached_property
    def total_steps(self) -> int | None:
        """Return the optimizer steps of the whole run; None if only a compute budget ends it."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        if self.recipe.budget_flops is not None:
            return None
        rounds = math.ceil(self.recipe.epochs * self.rows / self.rows_per_round)
        return sum(map(self.steps_in, range(max(1, rounds))))

    def progress_at(self, step: float) -> float:
        """Return the fraction of the run done at a step, in [0, 1]: by steps, by compute or by
        feedback on completions, whichever is further."""
        fractions = [0.0]
        if self.total_steps is not None:
            fractions.append(step / max(self.total_steps, 1))
        if self.recipe.budget_flops is not None:
            # The cost of a reward model that was trained first counts, but it is no progress.
            first = self.ledger.flops["reward_training"]
            left = max(self.recipe.budget_flops - first, 1.0)
            fractions.append((self.ledger.total_flops - first) / left)
        if self.recipe.budget_feedback is not None:
            # Labelled rows do not count here: their number is limited when the data is loaded.
            fractions.append(self.ledger.online_feedback / self.recipe.budget_feedback)
        return min(max(fractions), 1.0)

    @property
    def progress(self) -> float:
        """Return the fraction of the run done so far, in [0, 1]."""
        return self.progress_at(self.step)

    @property
    def done(self) -> bool:
        """Return whether no further step is due."""
        return self.stopped is not None or self.progress >= 1.0 or self.total_steps == 0

    def seed_for(self, *what: Any) -> int:
        """Return a seed below 2^56 for something that happens once in this run, by its name."""
        return seed_from(repr((self.recipe.seed, *what)))


def seed_from(text: str) -> int:
    """Return a seed below 2^56, a hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

"""Which completions of a prompt are shown: at random, or by double Thompson sampling."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from threading import Condition, Thread
from typing import Protocol

import torch

from alignzoo_label.answers import Row, text_of
from alignzoo_label.candidates import Candidates
from alignzoo_label.ensemble import (
    Ensemble,
    double_thompson,
    fit_ensemble,
    start_ensemble,
)

HEADS = 16


class Choice(Protocol):
    """A way to choose completions of a prompt."""

    def pick(self, candidates: Candidates, size: int, random: Random) -> tuple[str, ...]:
        """Return the completions to show, `size` of them."""

    def learn(self, rows: Sequence[Row], made: Sequence[Candidates]) -> None:
        """Take note of all answers so far, without waiting for what follows from them."""


class AtRandom:
    """Choose completions at random."""

    def pick(self, candidates: Candidates, size: int, random: Random) -> tuple[str, ...]:
        """Return the completions to show, `size` of them."""
        return tuple(random.sample(candidates.completions, size))

    def learn(self, rows: Sequence[Row], made: Sequence[Candidates]) -> None:
        """Learn nothing."""


class Undecided:
    """Choose the two completions on which an ensemble is undecided, fitted in the background."""

    def __init__(self, seed: int):
        self.seed = seed
        self.ensemble: Ensemble | None = None  # the last one that was fitted
        self.fitted = 0  # answers that it was fitted to
        self._waiting: tuple[list[Row], list[Candidates]] | None = None
        self._changed = Condition()
        Thread(target=self._work, daemon=True).start()

    def pick(self, candidates: Candidates, size: int, random: Random) -> tuple[str, ...]:
        """Return two completions by double Thompson sampling, at random before the first fit."""
        if self.ensemble is None or candidates.states is None:
            return tuple(random.sample(candidates.completions, size))
        generator = torch.Generator().manual_seed(random.randrange(2**63))
        pair = double_thompson(self.ensemble.scores(candidates.states), generator)
        return tuple(candidates.completions[i] for i in pair)

    def learn(self, rows: Sequence[Row], made: Sequence[Candidates]) -> None:
        """Hand the answers over to the thread that fits; it takes the newest ones when it can."""
        with self._changed:
            self._waiting = list(rows), list(made)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                assert self._waiting is not None
                (rows, made), self._waiting = self._waiting, None
            self.fit(rows, made)

    def fit(self, rows: Sequence[Row], made: Sequence[Candidates]) -> None:
        """Fit the ensemble to the preferences among the answers whose candidates are known."""
        known = {one.key: one for one in made if one.states is not None}
        pairs = []
        for row in rows:
            if "chosen" in row and row["item"] in known:
                one = known[row["item"]]
                assert one.states is not None
                at = [one.completions.index(text_of(row[side])) for side in ("chosen", "rejected")]
                pairs.append(one.states[at])  # (2, H)
        if pairs:
            better, worse = torch.stack(pairs).unbind(1)  # (n, H) each
            seen = torch.cat([one.states for one in known.values() if one.states is not None])
            prior = start_ensemble(seen, HEADS, self.seed)
            self.ensemble = fit_ensemble(prior, better, worse, self.seed)
            self.fitted = len(pairs)

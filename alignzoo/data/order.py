"""Which rows make up the batch of a step, as a function of the step alone.

A run that resumes at step 1,000 needs no state but that number.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random


class Order:
    """Epoch after epoch, each a permutation of the n rows seeded by (seed, epoch).

    The epochs are laid end to end and cut into batches of exactly `batch_size`. So every row
    comes once per epoch and none is dropped: the last batch of an epoch is completed from the
    next one, and a batch larger than the data spans several epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int):
        if n < 1 or batch_size < 1:
            raise ValueError(f"an order needs rows and a batch size, not {n} and {batch_size}")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        # Two, because a batch at the border of epochs needs both of them.
        self._permutation = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> list[int]:
        """The row indices of a step, counted from 0."""
        first = step * self.batch_size
        return [self._row(position) for position in range(first, first + self.batch_size)]

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, self.n)
        return self._permutation(epoch)[offset]

    def _shuffled(self, epoch: int) -> list[int]:
        rows = list(range(self.n))
        # Text is hashed with SHA-512 by Random, so the same order comes out in every process.
        Random(f"{self.seed}/order/{epoch}").shuffle(rows)
        return rows

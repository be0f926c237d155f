"""Which rows make up the batch of a step, as a function of the step alone.

A run that resumes at step 1,000 needs no state but that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from random import Random


class Order:
    """Epoch after epoch, each a permutation of the n rows seeded by (seed, epoch).

    The epochs are laid end to end and cut into batches of exactly `batch_size`. So every row
    comes once per epoch and none is dropped: the last batch of an epoch is completed from the
    next one, and a batch larger than the data spans several epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int | str):
        if n < 1 or batch_size < 1:
            raise ValueError(f"an order needs rows and a batch size, not {n} and {batch_size}")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        # Two, because a batch at the border of epochs needs both of them.
        self._permutation = lru_cache(maxsize=2)(self._epoch)

    def batch(self, step: int) -> list[int]:
        """The row indices of a step, counted from 0."""
        first = step * self.batch_size
        return [self._row(position) for position in range(first, first + self.batch_size)]

    def fresh(self, step: int) -> list[int]:
        """The rows of a step that no earlier one had."""
        return self.batch(step)[: max(self.n - step * self.batch_size, 0)]

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, self.n)
        return self._permutation(epoch)[offset]

    def _epoch(self, epoch: int) -> list[int]:
        return self._shuffled(list(range(self.n)), epoch)

    def _shuffled(self, rows: list[int], epoch: int) -> list[int]:
        # Text is hashed with SHA-512 by Random, so the same order comes out in every process.
        Random(f"{self.seed}/order/{epoch}").shuffle(rows)
        return rows


class MixedOrder(Order):
    """The rows of several sources, of which an epoch has given numbers, `draws`.

    Each source has an order of its own, from which every epoch takes the next so many rows: it
    comes round as often as it must, in a new order each time, and a source that is larger than
    its draws goes on in the next epoch where it stopped. What an epoch has of all is shuffled.
    """

    def __init__(self, sizes: Sequence[int], draws: Sequence[int], batch_size: int, seed: int):
        super().__init__(sum(draws), batch_size, seed)
        self.firsts = list(accumulate(sizes, initial=0))[:-1]
        self.sources = [
            Order(size, drawn, f"{seed}/source/{index}")
            for index, (size, drawn) in enumerate(zip(sizes, draws, strict=True))
        ]
        self._seen: set[int] = set()
        self._next = 0

    def fresh(self, step: int) -> list[int]:
        """The rows of a step that no earlier one had; to be asked about ever later steps."""
        for earlier in range(self._next, step):
            self._seen.update(self.batch(earlier))
        rows = [row for row in dict.fromkeys(self.batch(step)) if row not in self._seen]
        self._seen.update(rows)
        self._next = step + 1
        return rows

    def _epoch(self, epoch: int) -> list[int]:
        rows = [
            first + row
            for first, source in zip(self.firsts, self.sources, strict=True)
            for row in source.batch(epoch)
        ]
        return self._shuffled(rows, epoch)


def apportion(n: int, weights: Sequence[float]) -> list[int]:
    """n in whole numbers that are to each other as the weights, by the largest remainders.

    Each is within 1 of n w_i / sum(w), and they add up to n.
    """
    scaled = [weight / max(weights) for weight in weights]
    quotas = [n * weight / math.fsum(scaled) for weight in scaled]
    parts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - quotas[i])
    for i in by_remainder[: n - sum(parts)]:
        parts[i] += 1
    return parts

"""Orders of training rows: the batch of a step as a function of the step alone.

A run that resumes at step 1,000 needs no state but that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from random import Random


class EpochOrder:
    """Epochs of n rows, each a permutation seeded by (seed, epoch).

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
        """Return the row indices of a step; steps count from 0."""
        first = step * self.batch_size
        return [self._row(position) for position in range(first, first + self.batch_size)]

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, self.n)
        return self._permutation(epoch)[offset]

    def _epoch(self, epoch: int) -> list[int]:
        return self._shuffled(list(range(self.n)), epoch)

    def _shuffled(self, rows: list[int], epoch: int) -> list[int]:
        # Random hashes text with SHA-512, so every process gets the same order.
        Random(f"{self.seed}/order/{epoch}").shuffle(rows)
        return rows


class MixtureOrder(EpochOrder):
    """Epochs that take `draws[i]` rows of source i, which has `sizes[i]`.

    Each source has an order of its own, from which every epoch takes the next rows: a small source
    repeats, in a new order each time, and a large one continues in the next epoch where it
    stopped. The rows of an epoch are shuffled.
    """

    def __init__(self, sizes: Sequence[int], draws: Sequence[int], batch_size: int, seed: int):
        super().__init__(sum(draws), batch_size, seed)
        self.firsts = list(accumulate(sizes, initial=0))[:-1]
        self.sources = [
            EpochOrder(size, drawn, f"{seed}/source/{index}")
            for index, (size, drawn) in enumerate(zip(sizes, draws, strict=True))
        ]

    def _epoch(self, epoch: int) -> list[int]:
        rows = [
            first + row
            for first, source in zip(self.firsts, self.sources, strict=True)
            for row in source.batch(epoch)
        ]
        return self._shuffled(rows, epoch)


def apportion(n: int, weights: Sequence[float]) -> list[int]:
    """Divide n into whole numbers in proportion to the weights, by the largest remainders.

    Each is within 1 of n w_i / sum(w), and they add up to n.
    """
    scaled = [weight / max(weights) for weight in weights]
    quotas = [n * weight / math.fsum(scaled) for weight in scaled]
    parts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - quotas[i])
    for i in by_remainder[: n - sum(parts)]:
        parts[i] += 1
    return parts

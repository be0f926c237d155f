"""Numbers about the completions of a round.

They are logged with each of its steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.run.world import World


@dataclass
class RoundLog:
    """Numbers about a round's completions, logged with each of its steps.

    Numbers are only added until the next round begins, so that plugins do not delete each other's.
    """

    world: World
    numbers: dict[str, float] = field(default_factory=dict)

    def add(self, numbers: Mapping[str, float]) -> None:
        """Log each number with the steps of this round."""
        self.numbers |= numbers

    def add_means(self, values: Mapping[str, Tensor]) -> None:
        """Log the mean of each vector `[n]` over all processes.

        NaN is ignored, and the mean of no values is not logged. All processes call it with the same
        names in the same order.
        """
        for name, own in values.items():
            known = [
                v for v in self.world.gather_values(own.double()).tolist() if not math.isnan(v)
            ]
            if known:
                self.numbers[name] = sum(known) / len(known)

"""Numbers about the completions of a round.

They are logged with each of its steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.faults import THE_CORE, PluginMethod, called_plugin
from alignzoo.reserved import Names
from alignzoo.run.world import World


@dataclass
class RoundLog:
    """Numbers about a round's completions, logged with each of its steps.

    Numbers are only added until the next round begins, and each name has one giver, so that plugins
    do not replace each other's, nor those of the core.
    """

    world: World
    names: Names = field(default_factory=Names)
    numbers: dict[str, float] = field(default_factory=dict)

    def add(self, numbers: Mapping[str, float], giver: PluginMethod | None = None) -> None:
        """Log each number with the steps of this round.

        They are the plugin's whose hook is called, if `giver` says no other. Raise `RunFailed` for
        the name of a number of the core or of another plugin.
        """
        giver = giver or called_plugin() or THE_CORE
        for name in numbers:
            self.names.metrics.claim(name, giver)
        self.numbers |= numbers

    def restore(self, numbers: Mapping[str, float]) -> None:
        """Take over the numbers of a checkpoint, whoever gave them."""
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
                self.add({name: sum(known) / len(known)})

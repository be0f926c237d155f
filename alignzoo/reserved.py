"""The names of the numbers that the core logs itself, and who gives every other one.

No plugin may give a number of the core, and no two plugins give one name: a table would then show
one of them under the name of the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from alignzoo.faults import THE_CORE, PluginMethod

# Of a step. The metrics of a loss, and those that `run.log_mean` logs, go into the same row.
METRICS = re.compile(
    "step|loss|grad_norm|learning_rate|flops|reward|reward_std|frac_reward_zero_std"
    "|rewards/.+/(mean|std|missing)|(sampling|alarms)/.+"
)
# Of an evaluation: those of completions, and those of the algorithm's loss on held-out rows.
ESTIMATES = re.compile("score|kl|length|ended|answer/flops|pass@.+|majority|held-out/loss(/.+)?")
ANOTHER_NAME = "a plugin gives numbers under names of its own, such as PLUGIN/NAME"


@dataclass
class GivenNames:
    """Who gives which number, by name.

    Args:
        what: "metric" or "estimate", for messages.
        reserved: the names of the core.
    """

    what: str
    reserved: re.Pattern[str]
    givers: dict[str, PluginMethod] = field(default_factory=dict)

    def claim(self, name: str, place: PluginMethod) -> None:
        """Note who gives a name. Raise `RunFailed` if it is the core's or another plugin's."""
        giver = self.givers.get(name)
        if giver is None:
            if not place.in_core:
                self.refuse_reserved(name, place)
            self.givers[name] = place
        elif giver.owner != place.owner:
            if place.in_core:
                giver, place = place, giver
            raise place.fail(f"gave the {self.what} {name!r}, which {giver} gives", ANOTHER_NAME)

    def refuse_reserved(self, name: str, place: PluginMethod) -> None:
        """Raise `RunFailed` if the core gives a number of this name."""
        if self.reserved.fullmatch(name):
            raise place.fail(
                f"gave the {self.what} {name!r}, which is the core's own", hint=ANOTHER_NAME
            )

    def refuse_change(self, name: str, place: PluginMethod) -> None:
        """Raise `RunFailed` for a plugin that changed a number that it did not give."""
        giver = self.givers.get(name, THE_CORE)
        raise place.fail(f"changed the {self.what} {name!r}, which {giver} gives", ANOTHER_NAME)


@dataclass
class Names:
    """The names of a run's numbers, and who gives them."""

    metrics: GivenNames = field(default_factory=lambda: GivenNames("metric", METRICS))
    estimates: GivenNames = field(default_factory=lambda: GivenNames("estimate", ESTIMATES))

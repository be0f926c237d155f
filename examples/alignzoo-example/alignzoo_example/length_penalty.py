"""An add-on that wraps a hook: it changes what all rewards of a run return."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import Batch, hookimpl


@dataclass(eq=False)
class LengthPenalty:
    """Subtract a little from every reward for each token of the completion"""

    rate: Annotated[float, "subtracted for each token", Ge(0), Le(1)] = 0.01

    known_exceptions = {"core metrics": "it changes rewards, so that something else is learned"}

    @hookimpl(wrapper=True)
    def alignzoo_reward(self, batch: Batch) -> Generator[None, list[Tensor], list[Tensor]]:
        """Lower each reward, `[N]`; `yield` returns those of all plugins."""
        rewards = yield
        penalty = self.rate * batch.mask.sum(-1)  # of the tokens that the policy wrote
        return [reward - penalty for reward in rewards]

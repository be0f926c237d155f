"""A reward for completions that do not repeat themselves."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le

from alignzoo import RowReward


@dataclass(eq=False)
class Variety(RowReward):
    """The fraction of a completion's words that are different"""

    least: Annotated[int, "words of a completion that it applies to", Ge(1), Le(1000)] = 2

    def score(self, row: dict[str, Any], completion: str) -> float | None:
        """Return a number in [0, 1], or None for a completion of fewer words."""
        words = completion.lower().split()
        return len(set(words)) / len(words) if len(words) >= self.least else None

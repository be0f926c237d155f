"""Small environments that the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

from annotated_types import Ge

from alignzoo.environments import Environment, Step


@dataclass(eq=False)
class Echo(Environment):
    """Say the number of letters so far and a number of the seed, for some turns."""

    turns: Annotated[int, "turns until it is over", Ge(1)] = 3

    def reset(self, row: dict[str, Any]) -> None:
        self.seen: list[str] = []
        self.draw = Random(self.seed).randrange(10)

    def step(self, text: str) -> Step:
        self.seen.append(text)
        reward = sum(map(ord, text)) % 11 / 11
        return Step(f"{len(text)} {self.draw}", reward, len(self.seen) == self.turns)

"""An environment with a state outside of the program."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from alignzoo.environments import Environment, Step


@dataclass(eq=False)
class Outside(Environment):
    """Say what cannot be foreseen, three times, as a server might."""

    def __post_init__(self) -> None:
        self.outside_state = True

    def reset(self, row):
        self.turns = 0

    def step(self, text: str) -> Step:
        self.turns += 1
        reward = sum(map(ord, text)) % 11 / 11
        return Step(secrets.token_hex(2), reward, self.turns == 3)

"""What `--reward` says: which reward, how much it weighs, and its options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.errors import BadInput
from alignzoo.options import split_options

FUNCTION = "python:"


@dataclass(frozen=True)
class Named:
    """A reward by name: `math`, `math:0.5`, `regex:2,pattern=^[0-9]+$`, `python:module.function`,
    `./my_reward.py` or `runs/reward-...`."""

    name: str
    weight: float = 1.0
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Named:
        """From `NAME[:WEIGHT][,OPTION=VALUE...]`; a value may hold commas, a folder colons."""
        head, options = split_options(text, "--reward")
        name, colon, number = head.rpartition(":")
        weight = _number(number) if colon and name else None
        if weight is None:
            name, weight = head, 1.0
        if not name:
            raise BadInput(
                f"option --reward: {text!r} names no reward",
                hint="write NAME, NAME:WEIGHT or NAME:WEIGHT,OPTION=VALUE",
            )
        if not math.isfinite(weight) or weight == 0:
            raise BadInput(f"option --reward: {number!r} is not a weight for {name!r}")
        return cls(name, weight, options)

    @property
    def label(self) -> str:
        """How it is called in the log: the name, without the way to it."""
        if self.name.startswith(FUNCTION):
            return self.name.rpartition(".")[2]
        return Path(self.name).name.removesuffix(".py")


def parse_all(texts: list[str]) -> list[Named]:
    """All rewards of a run; two that would be called the same are refused."""
    found = [Named.parse(text) for text in texts]
    labels = [named.label for named in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise BadInput(
            f"option --reward: {min(twice)!r} is named twice",
            hint="give it once, with the weight that it is to have: NAME:WEIGHT",
        )
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

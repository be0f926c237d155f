"""What `--reward` says: which reward, how much it weighs, and its options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo import discovery
from alignzoo.errors import BadInput
from alignzoo.options import build, split_options
from alignzoo.rewards.function import FunctionReward
from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.rows import TaskReward

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


TASK = "task"  # the one that is there without being named
LEARNED = "learned"  # a model that is trained first


def rewards_of(
    texts: list[str],
    task: Any | None,
    learned: Callable[[Named], Path],
    *,
    trust_remote_code: bool = False,
    allow_code: bool = False,
) -> list[tuple[Named, Any]]:
    """The rewards that a run names, with the objects that give them.

    `learned` gives the folder of the reward model that is trained for this run.
    """
    named = parse_all(texts)
    # It is trained when it is known that nothing is wrong with the others.
    last = sorted(named, key=lambda each: each.name == LEARNED)
    found = {
        each.label: ModelReward(str(learned(each)), trust_remote_code)
        if each.name == LEARNED
        else reward_of(each, task, trust_remote_code, allow_code)
        for each in last
    }
    return [(each, found[each.label]) for each in named]


def reward_of(named: Named, task: Any | None, trust_remote_code: bool, allow_code: bool) -> Any:
    """The task's own score, a function, a reward model's folder, or a plugin."""
    name = named.name
    is_plugin = not (name == TASK or name.startswith(FUNCTION) or Path(name).is_dir())
    if named.options and not is_plugin:
        raise BadInput(f"reward {name!r} has no option {min(named.options)!r}")
    if name == TASK:
        if task is None:
            raise BadInput("option --reward: 'task' is the score of a --task, and there is none")
        return TaskReward(task)
    if name.startswith(FUNCTION):
        return FunctionReward(name.removeprefix(FUNCTION))
    if not is_plugin:
        return ModelReward(name, trust_remote_code)
    reward = build(discovery.load("rewards", name), named.options, f"reward {name!r}")
    if getattr(reward, "runs_code", False) and not allow_code:
        raise BadInput(
            f"reward {name!r} runs what the model writes as programs on this machine",
            hint="its page says what they are kept from; if that is enough, add --allow-code",
        )
    return reward

"""Build rewards from `--reward NAME[:WEIGHT][,OPTION=VALUE...]`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.discovery import FUNCTION
from alignzoo.errors import BadInput
from alignzoo.named import build_plugin
from alignzoo.options import split_options
from alignzoo.rewards.function import FunctionReward
from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.rows import EnvironmentReward, TaskReward

TASK = "task"  # the score of the run's task, the default reward of a run with a task
ENVIRONMENT_REWARD = "environment"  # the rewards of the run's environment, its default reward
LEARNED = "learned"  # a reward model that is trained first


@dataclass(frozen=True)
class RewardSpec:
    """A reward by name: `math`, `math:0.5`, `regex:2,pattern=^[0-9]+$`, `python:module.function`,
    `./my_reward.py` or `runs/reward-...`."""

    name: str
    weight: float = 1.0
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> RewardSpec:
        """Parse `NAME[:WEIGHT][,OPTION=VALUE...]`, or raise `BadInput`.

        A value may contain commas, and a folder colons.
        """
        head, options = split_options(text, "--reward")
        name, colon, number = head.rpartition(":")
        weight = _parse_weight(number) if colon and name else None
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
        """Return its name in the log: the name without the path to it."""
        if self.name.startswith(FUNCTION):
            return self.name.rpartition(".")[2]
        return Path(self.name).name.removesuffix(".py")


def parse_specs(texts: list[str]) -> list[RewardSpec]:
    """Parse the rewards of a run. Raise `BadInput` if two have the same label."""
    found = [RewardSpec.parse(text) for text in texts]
    labels = [spec.label for spec in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise BadInput(
            f"option --reward: {min(twice)!r} is named twice",
            hint="give it once, with its weight: NAME:WEIGHT",
        )
    return found


def _parse_weight(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def resolve_rewards(
    texts: list[str],
    task: Any | None,
    train: Callable[[RewardSpec], Path],
    *,
    allow_code: bool = False,
) -> list[tuple[RewardSpec, Any]]:
    """Return the rewards that a run names, with the objects that give them.

    `train` returns the folder of the reward model that is trained for this run.
    """
    specs = parse_specs(texts)
    # A learned reward is last: it is trained only if the others are valid.
    found = {
        spec.label: ModelReward(str(train(spec)))
        if spec.name == LEARNED
        else resolve_reward(spec, task, allow_code)
        for spec in sorted(specs, key=lambda spec: spec.name == LEARNED)
    }
    return [(spec, found[spec.label]) for spec in specs]


def resolve_reward(spec: RewardSpec, task: Any | None, allow_code: bool) -> Any:
    """Build the reward of a spec: a task's score, a function, a reward model or a plugin.

    Raise `BadInput` if there is no such reward or option, or if it runs code without permission.
    """
    name = spec.name
    is_plugin = not (
        name in (TASK, ENVIRONMENT_REWARD) or name.startswith(FUNCTION) or Path(name).is_dir()
    )
    if spec.options and not is_plugin:
        raise BadInput(f"reward {name!r} has no option {min(spec.options)!r}")
    if name == TASK:
        if task is None:
            raise BadInput("option --reward: 'task' is the score of a --task, and there is none")
        if not hasattr(task, "score"):
            raise BadInput("option --reward: 'task' scores no completions, so it is no reward")
        return TaskReward(task)
    if name == ENVIRONMENT_REWARD:
        return EnvironmentReward()
    if name.startswith(FUNCTION):
        return FunctionReward(name.removeprefix(FUNCTION))
    if not is_plugin:
        return ModelReward(name)
    reward = build_plugin("rewards", name, spec.options)
    if getattr(reward, "runs_code", False) and not allow_code:
        raise BadInput(
            f"reward {name!r} runs what the model writes as programs on this machine",
            hint="its page says what the sandbox prevents; if that is enough, add --allow-code",
        )
    return reward

"""From what `--reward` names to the objects that score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo import plugins
from alignzoo.errors import BadInput
from alignzoo.options import build
from alignzoo.rewards.function import FunctionReward
from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.named import FUNCTION, Named, parse_all
from alignzoo.rewards.task import TaskReward

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
    reward = build(plugins.load("rewards", name), named.options, f"reward {name!r}")
    if getattr(reward, "runs_code", False) and not allow_code:
        raise BadInput(
            f"reward {name!r} runs what the model writes as programs on this machine",
            hint="its page says what they are kept from; if that is enough, add --allow-code",
        )
    return reward

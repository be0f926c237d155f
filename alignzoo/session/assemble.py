"""Who takes part in a run: its algorithm, task, rewards, sampler and add-ons, with their hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo import discovery, hooks
from alignzoo.algorithm import Algorithm, needs_of, trains_of
from alignzoo.data import Prompts
from alignzoo.errors import BadInput
from alignzoo.options import build
from alignzoo.recipe import Recipe
from alignzoo.rewards import PREFIX, TASK, Named, rewards_of
from alignzoo.rollout import Sampler, sampler_of
from alignzoo.training.alarms import Alarms


@dataclass(frozen=True)
class Cast:
    """`plugins` are all of them, and the add-ons, on one manager."""

    algorithm: Any
    task: Any | None
    rewards: list[tuple[Named, Any]]
    sampler: Sampler
    plugins: hooks.RunPlugins


def cast_for(
    recipe: Recipe,
    learned: Callable[[Named], Path],
    *,
    trust_remote_code: bool,
    allow_code: bool,
) -> Cast:
    """Everybody whom a recipe names, or `BadInput` where they cannot work together.

    `learned` gives the folder of the reward model that is trained for this run.
    """
    named = build(discovery.load("algorithms", recipe.algorithm), recipe.options, recipe.algorithm)
    # Of one that gives rewards to another, the other is the algorithm.
    algorithm = getattr(named, "learner", named)
    check_algorithm(algorithm, recipe)
    task = discovery.load("tasks", recipe.task)() if recipe.task else None
    sampler = sampler_of(recipe)
    wanted = recipe.reward or ([TASK] if task is not None and algorithm is named else [])
    rewards = rewards_of(
        wanted, task, learned, trust_remote_code=trust_remote_code, allow_code=allow_code
    )
    objects: dict[str, Any] = {  # what comes later is called first
        f"sampler {recipe.sampler}" if recipe.sampler else "the default sampler": sampler,
        "the alarms": Alarms(recipe.stop_on),
    }
    if task is not None:
        objects[f"task {recipe.task}"] = task
    objects |= {PREFIX + named.label: reward for named, reward in rewards}
    if algorithm is not named:
        objects[PREFIX + recipe.algorithm] = named
    objects[recipe.algorithm] = algorithm
    for name in recipe.addons:
        objects[name] = discovery.load("addons", name)()
    manager = hooks.manager(objects, loss=trains_of(algorithm))
    if (
        hasattr(algorithm, "alignzoo_advantage")
        and not manager.hook.alignzoo_reward.get_hookimpls()
    ):
        raise BadInput(
            f"{recipe.algorithm} learns from rewards, and nothing gives any",
            hint="add --reward NAME (math, learned, runs/NAME, python:module.function, ...), or "
            "a --task that judges by itself",
        )
    return Cast(algorithm, task, rewards, sampler, manager)


def check_algorithm(algorithm: Any, recipe: Recipe) -> None:
    """`BadInput` where the recipe asks of an algorithm what it does not do."""
    if not isinstance(algorithm, Algorithm):
        raise BadInput(
            f"algorithm {recipe.algorithm!r} does not say which data it eats",
            hint="add a line such as  data = Preferences  to its class",
        )
    draws = algorithm.data is Prompts or "alignzoo_sample" in discovery.hook_methods(algorithm)
    if recipe.sampler is not None and not draws:
        raise BadInput(f"option --sampler: {recipe.algorithm} draws no completions")
    needs = needs_of(algorithm)
    if recipe.adapter != "none" and not needs.adapter:
        raise BadInput(f"{recipe.algorithm} trains all weights", hint="add --adapter none")
    if needs.values == "own" and (
        recipe.adapter in ("none", "prompt", "prefix") or recipe.gradient_checkpointing
    ):
        raise BadInput(
            "values of their own need a second adapter in the layers, beside --adapter "
            f"{recipe.adapter}" + " with --gradient-checkpointing" * recipe.gradient_checkpointing,
            hint="share the policy's trunk, or use --adapter lora",
        )
    if not trains_of(algorithm):
        if recipe.steps != 0:
            raise BadInput(f"option --steps: {recipe.algorithm} trains nothing")
        if recipe.eval_size == 0:
            raise BadInput(
                f"option --eval-size: {recipe.algorithm} trains nothing, and without held-out "
                "prompts it has nothing to answer"
            )

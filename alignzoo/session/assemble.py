"""The plugins of a run: its algorithm, task, rewards, sampler and add-ons, with their hooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo import discovery, hooks
from alignzoo.algorithm import Algorithm, Traits
from alignzoo.data import Feedback, Preferences, Prompts
from alignzoo.environments import Environment, load_environment
from alignzoo.errors import BadInput
from alignzoo.named import build_named, build_plugin, load_task
from alignzoo.options import options_of, split_options
from alignzoo.recipe import Recipe
from alignzoo.remote import is_url
from alignzoo.rewards import (
    ENVIRONMENT_REWARD,
    LEARNED,
    PLUGIN_PREFIX,
    TASK,
    RewardSpec,
    resolve_rewards,
)
from alignzoo.rollout import Sampler, load_sampler
from alignzoo.run.server_teacher import parse_server
from alignzoo.run.teacher import BASE
from alignzoo.session.learned import RewardTrainer
from alignzoo.training.alarms import OF_EVALUATIONS, OF_PAIRS, Alarms
from alignzoo.training.defaults import TrainingDefaults


@dataclass(frozen=True)
class Participants:
    """The participants of a run, all of which are registered in `plugins`, with the add-ons."""

    algorithm: Any
    task: Any | None
    rewards: list[tuple[RewardSpec, Any]]
    sampler: Sampler
    environment: Environment | None
    plugins: hooks.RunPlugins

    @property
    def traits(self) -> Traits:
        """Return the traits of the algorithm."""
        return Traits.of(self.algorithm)

    @property
    def trained_rewards(self) -> list[Path]:
        """Return the folders of the reward models that were trained for this run."""
        return [Path(reward.folder) for spec, reward in self.rewards if spec.name == LEARNED]


def assemble(recipe: Recipe, trainer: RewardTrainer, *, allow_code: bool) -> Participants:
    """Build the plugins that a recipe names. Raise `BadInput` if they do not fit together.

    `trainer` trains a reward model if the recipe needs one; `allow_code` permits rewards that run
    completions as programs.
    """
    named = build_plugin("algorithms", recipe.algorithm, recipe.options)
    # An algorithm with a `learner` is a reward; the learner is the algorithm of the run.
    algorithm = getattr(named, "learner", named)
    check_algorithm(algorithm, recipe)
    task = load_task(recipe.task) if recipe.task else None
    check_split(recipe, task)
    sampler = load_sampler(recipe)
    environment = load_environment(recipe.environment) if recipe.environment else None
    check_environment(environment, sampler, recipe)
    own = ENVIRONMENT_REWARD if environment else TASK if hasattr(task, "score") else None
    wanted = recipe.reward or ([own] if own and algorithm is named else [])
    rewards = resolve_rewards(wanted, task, trainer.train, allow_code=allow_code)
    objects: dict[str, Any] = {  # pluggy calls later ones first
        f"sampler {recipe.sampler}" if recipe.sampler else "the default sampler": sampler,
        "the defaults": TrainingDefaults(),
        "the alarms": Alarms(recipe.stop_on_alarm),
    }
    if recipe.optimizer is not None:
        objects[f"optimizer {recipe.optimizer}"] = load_optimizer(recipe.optimizer)
    if task is not None:
        objects[f"task {recipe.task}"] = task
    if environment is not None:
        objects[f"environment {recipe.environment}"] = environment
    objects |= {PLUGIN_PREFIX + spec.label: reward for spec, reward in rewards}
    if algorithm is not named:
        objects[PLUGIN_PREFIX + recipe.algorithm] = named
    objects[recipe.algorithm] = algorithm
    for text in recipe.addons:
        name = split_options(text, "--with")[0]
        if name in objects:
            raise BadInput(f"option --with: {name!r} is named twice")
        objects[name] = build_named("addons", text, "--with")
    manager = hooks.make_manager(objects, loss=Traits.of(algorithm).trains)
    check_rewards(recipe, algorithm, manager)
    return Participants(algorithm, task, rewards, sampler, environment, manager)


def load_optimizer(text: str) -> Any:
    """Build the optimizer plugin that `NAME[,OPTION=VALUE...]` names, or raise `BadInput`."""
    found = build_named("optimizers", text, "--optimizer")
    if "alignzoo_optimizer" not in discovery.hook_methods(type(found)):
        raise BadInput(
            f"optimizer {text!r} has no hook method `alignzoo_optimizer(run, parameters)`",
            hint="mark it with @hookimpl, and return a torch.optim.Optimizer",
        )
    return found


def check_environment(environment: Environment | None, sampler: Sampler, recipe: Recipe) -> None:
    """Raise `BadInput` if nothing gives a reward that is asked for, or plays the episodes."""
    if environment is None:
        if any(RewardSpec.parse(text).name == ENVIRONMENT_REWARD for text in recipe.reward):
            raise BadInput(
                "option --reward: 'environment' is the reward of an --environment, and there is "
                "none"
            )
        return
    if not sampler.plays_episodes:
        raise BadInput(
            f"option --sampler: {recipe.sampler!r} draws whole completions, and cannot let the "
            f"environment {recipe.environment!r} answer between two turns",
            hint="leave --sampler out: the model in this process does",
        )


def check_split(recipe: Recipe, task: Any | None) -> None:
    """Raise `BadInput` if there are no prompts of a task to take a test split of."""
    measured = "prompts" in getattr(task, "views", ()) or hasattr(task, "measure")
    if recipe.eval_split == "test" and not measured:
        raise BadInput(
            "option --eval-split: only a task with prompts has a test split",
            hint="add --task NAME, or leave --eval-split out: some rows of --data are held out",
        )


def check_rewards(recipe: Recipe, algorithm: Any, manager: hooks.RunPlugins) -> None:
    """Raise `BadInput` if an algorithm that learns from rewards has none."""
    learns = hasattr(algorithm, "alignzoo_advantage")
    if learns and not manager.hook.alignzoo_reward.get_hookimpls():
        raise BadInput(
            f"{recipe.algorithm} needs a reward",
            hint="add --reward NAME (math, learned, runs/NAME, python:module.function, ...), or a "
            "--task with a score of its own",
        )


def check_algorithm(algorithm: Any, recipe: Recipe) -> None:
    """Raise `BadInput` if an algorithm does not support the recipe."""
    if not isinstance(algorithm, Algorithm):
        raise BadInput(
            f"algorithm {recipe.algorithm!r} does not declare its data view",
            hint="add a line such as  data = Preferences  to its class",
        )
    traits = Traits.of(algorithm)
    refuse_unread_options(algorithm, traits, recipe)
    if recipe.adapter != "none" and not traits.needs.adapter:
        raise BadInput(f"{recipe.algorithm} trains all weights", hint="add --adapter none")
    if traits.needs.values == "own" and (
        recipe.adapter in ("none", "prompt", "prefix") or recipe.gradient_checkpointing
    ):
        raise BadInput(
            f"--values own needs an adapter in the layers, not --adapter {recipe.adapter}"
            + " with --gradient-checkpointing" * recipe.gradient_checkpointing,
            hint="use --values shared, or --adapter lora",
        )
    if traits.needs.teacher:
        check_teacher(recipe)
    if not traits.trains and recipe.eval_size == 0:
        raise BadInput(
            f"option --eval-size: {recipe.algorithm} does not train, and without held-out "
            "prompts it has nothing to answer"
        )


def check_teacher(recipe: Recipe) -> None:
    """Raise `BadInput` unless the recipe names a teacher."""
    if recipe.teacher is None:
        raise BadInput(
            f"{recipe.algorithm} needs a teacher",
            hint="add --teacher MODEL: a name on the Hub, a folder, an earlier run, or a server",
        )
    if is_url(recipe.teacher):
        parse_server(recipe.teacher)
        if recipe.teacher_four_bit:
            raise BadInput("option --teacher-four-bit: the teacher is loaded by its server")
    if recipe.teacher == BASE and recipe.teacher_four_bit:
        raise BadInput(
            "option --teacher-four-bit: the base has the precision of the model itself",
            hint="leave it out, or use --qlora",
        )


TRAINING_OPTIONS = (
    "steps", "epochs", "budget", "batch_size", "learning_rate", "warmup", "schedule",
    "optimizer", "weight_decay", "max_grad_norm", "gradient_checkpointing", "shard",
    "checkpoint_every", "eval_every",
)  # fmt: skip


def check_alarm(name: str, algorithm: Any, recipe: Recipe, *, draws: bool) -> None:
    """Raise `BadInput` for an alarm that never rings in this run; `draws` completions or not."""
    problem = None
    if name in OF_PAIRS:
        pairs = (Preferences, Feedback) if name == "displacement" else (Preferences,)
        if draws and name == "displacement":
            problem = "draws its completions, which differ from step to step"
        elif not draws and algorithm.data not in pairs:
            problem = "learns from no pairs"
    elif name in OF_EVALUATIONS:
        if not recipe.eval_size or not recipe.eval_every or not Traits.of(algorithm).generates:
            problem = "is not evaluated on the way, as by --eval-every"
    elif not draws:
        problem = "draws no completions to learn from"
    if problem:
        raise BadInput(
            f"option --stop-on-alarm: {recipe.algorithm} {problem}",
            hint=f"leave {name!r} out: it never rings in this run",
        )


def refuse_unread_options(algorithm: Any, traits: Traits, recipe: Recipe) -> None:
    """Raise `BadInput` for an option that has no effect in this run."""
    draws = algorithm.data is Prompts or "alignzoo_sample" in discovery.hook_methods(algorithm)
    answers = recipe.eval_size > 0 and traits.generates
    unread: dict[str, str] = {}
    if not draws:
        unread["sampler"] = "draws no completions to learn from"
    for name in recipe.stop_on_alarm:
        check_alarm(name, algorithm, recipe, draws=draws)
    if not answers:
        unread["eval_split"] = "answers no held-out prompts in this run"
    if not (draws or answers):
        unread |= dict.fromkeys(
            ("temperature", "top_k", "top_p", "min_p", "stop_text", "environment"),
            "generates no completions in this run",
        )
        if not traits.generates:
            unread["max_new_tokens"] = "generates no completions"
    if not (algorithm.data is Prompts or hasattr(algorithm, "alignzoo_advantage")):
        unread["reward"] = "does not learn from rewards"
    if not traits.needs.reference:
        unread["cache_reference"] = "has no reference model"
    if not traits.needs.teacher:
        unread |= dict.fromkeys(("teacher", "teacher_four_bit"), "learns from no teacher")
    if not traits.trains:
        unread |= dict.fromkeys(TRAINING_OPTIONS, "trains nothing")
    defaults = dict(traits.defaults)
    if recipe.environment is not None and recipe.task is not None:  # the task may bring its own
        defaults["environment"] = getattr(load_task(recipe.task), "environment", None)
    for option in options_of(Recipe):
        default = defaults.get(option.name, option.default)
        if option.name in unread and getattr(recipe, option.name) != default:
            raise BadInput(f"option {option.flag}: {recipe.algorithm} {unread[option.name]}")

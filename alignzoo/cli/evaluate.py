"""`alignzoo eval`: a run or a model evaluated on tasks, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import shell_command, summary_table, to_plain
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.options import current_names, flag_of, options_of, split_names
from alignzoo.recipe import Recipe, find_code
from alignzoo.record import read_run

DEFAULT_TASK = "style"
SAMPLING = ("temperature", "max_new_tokens", "top_k", "top_p", "min_p", "stop_text")


@dataclass(kw_only=True)
class Evaluate:
    """Evaluate a run or a model on tasks."""

    model: Annotated[str, "folder of a run, or a model: zoo-tiny, a name on the Hub, a folder"]
    tasks: Annotated[
        str | None,
        "tasks to evaluate on, a,b or a,OPTION=VALUE,b [default: the run's own task, or style]",
    ] = None
    seed: Annotated[int, "random seed of the sampling", Ge(0), Le(2**63 - 1)] = 0
    temperature: Annotated[
        float | None,
        "sampling temperature (0: greedy) [default: the run's, or 1.0]",
        Ge(0),
        Le(100),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        "maximum length of a completion in tokens [default: the run's, or 64]",
        Gt(0),
        Le(10**6),
    ] = None
    top_k: Annotated[int | None, "top-k sampling (0: off) [default: the run's, or 0]", Ge(0)] = None
    top_p: Annotated[
        float | None, "nucleus (top-p) mass [default: the run's, or 1.0]", Gt(0), Le(1)
    ] = None
    min_p: Annotated[
        float | None,
        "min-p threshold relative to the top token [default: the run's, or 0.0]",
        Ge(0),
        Le(1),
    ] = None
    stop_text: Annotated[
        list[str], "text that ends a completion (may be repeated) [default: the run's]"
    ] = field(default_factory=list)
    split: Annotated[
        Literal["dev", "test"],
        "split of the tasks: dev to tune and choose, test once at the end",
    ] = "dev"
    samples: Annotated[
        int,
        "completions of each prompt; more than one also give pass@k, and the majority's score if "
        "the task reads answers",
        Ge(1),
        Le(10_000),
    ] = 1
    shots: Annotated[
        int, "worked examples before each prompt, from the task's demonstrations", Ge(0), Le(1000)
    ] = 0
    environment: Annotated[
        str | None,
        "environment in which prompts are answered, NAME[,OPTION=VALUE...] [default: the run's own "
        "on its own task; else the task's, if it has one]",
    ] = None
    limit: Annotated[int, "maximum number of items per task", Ge(1)] = 200
    json: Annotated[bool, "print machine-readable JSON"] = False
    trust_remote_code: Annotated[bool, "run custom code that the model ships"] = False

    def main(self) -> None:
        """Evaluate, and print a table or JSON."""
        named = split_names(self.tasks, "--tasks") if self.tasks is not None else None
        tasks = named or [own_task(self.model)]
        environment = self.environment or (None if named else own_environment(self.model))
        given = {name: getattr(self, name) for name in SAMPLING}
        sampling, of_run = sampling_settings(self.model, given)
        with quiet() as log:
            # With --json, standard output holds nothing else.
            ui = Terminal(log.err if self.json else log.out, log)
            if of_run:
                ui.note(f"sampling as the run did: {' '.join(of_run)}")
            with ui.phase("starting"):
                from alignzoo.evaluation import EvaluationSettings, evaluate_model
            found = evaluate_model(
                self.model,
                tasks,
                EvaluationSettings(
                    split=self.split,
                    limit=self.limit,
                    seed=self.seed,
                    samples=self.samples,
                    shots=self.shots,
                    environment=environment,
                    sampling=sampling,
                ),
                trust_remote_code=self.trust_remote_code,
                ui=ui,
            )
        if self.json:
            facts = {"model": self.model, "split": self.split, "tasks": to_plain(found)}
            print(json.dumps(facts, indent=2, allow_nan=False))
        else:
            summaries = {task: one.summary for task, one in found.items()}
            console_for(sys.stdout).print(summary_table(summaries))


def sampling_settings(model: str, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return how to sample, by the recipe's names, and the flags of what the run decides.

    What is not given, None or an empty list, is the run's; of any other model the recipe's default.
    Raise `BadInput` for a value in the run's record that is not allowed.
    """
    path = Path(model) / "run.json"
    options = options_of(Recipe)
    current = current_names(options)
    stored: dict[str, Any] = {}
    if path.is_file():
        recipe = read_run(path.parent)["recipe"]
        stored = {current.get(name, name): value for name, value in recipe.items()}
    settings: dict[str, Any] = {}
    flags = []
    for option in options:
        if option.name not in SAMPLING:
            continue
        value = given[option.name]
        if value in (None, []):
            value = option.check(stored.get(option.name, option.default), str(path))
            if value != option.default:
                texts = value if isinstance(value, list) else [value]
                flags += [shell_command([flag_of(option.name), str(text)]) for text in texts]
        settings[option.name] = value
    return settings, flags


def own_task(model: str) -> str:
    """Return the task of a run, or the default task for any other model.

    The folder of a run may come from a stranger: it is data, and only an installed task is taken
    from it. Raise `BadInput` if the run has no task, or a Python file as its task.
    """
    folder = Path(model)
    if not (folder / "run.json").is_file():
        return DEFAULT_TASK
    task = read_run(folder)["recipe"].get("task")
    if task is None:
        raise BadInput(
            "the run was trained on data and has no task", where=model, hint="add --tasks"
        )
    return require_no_code(model, "task", str(task), "--tasks")


def own_environment(model: str) -> str | None:
    """Return the environment of a run, None if it has none or for any other model.

    Raise `BadInput` if it is a Python file.
    """
    folder = Path(model)
    if not (folder / "run.json").is_file():
        return None
    found = read_run(folder)["recipe"].get("environment")
    return None if found is None else require_no_code(model, "environment", found, "--environment")


def require_no_code(model: str, key: str, named: str, flag: str) -> str:
    """Return what a run names as its task or environment; raise `BadInput` if that is code."""
    if find_code({key: named}):
        raise BadInput(
            f"this run names a Python file as its {key}, {named!r}: it runs only if it is typed",
            where=model,
            hint=f"read it, then add {flag} {shell_command([named])}",
        )
    return named

"""`alignzoo eval`: a run or a model judged by tasks, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.record import read_run

if TYPE_CHECKING:
    from alignzoo.cli.app import Evaluate


DEFAULT_TASK = "style"


def evaluate_command(
    model: str, options: Evaluate, *, as_json: bool, trust_remote_code: bool
) -> None:
    tasks = task_names(options.tasks) if options.tasks is not None else [own_task(model)]
    with quiet() as log:
        # Standard output is for a program then, and holds nothing but JSON.
        ui = Terminal(log.err if as_json else log.out)
        with ui.phase("starting"):
            from alignzoo.evaluation import evaluate_model
        found = evaluate_model(
            model,
            tasks,
            limit=options.limit,
            seed=options.seed,
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            trust_remote_code=trust_remote_code,
            ui=ui,
        )
    if as_json:
        print(json.dumps({"model": model, "tasks": plain(found)}, indent=2, allow_nan=False))
        return
    console_for(sys.stdout).print(summary_table({task: one.summary for task, one in found.items()}))


def task_names(text: str) -> list[str]:
    """`a,b` as names, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadInput(f"option --tasks: {text!r} has an empty name in it")
    return list(dict.fromkeys(names))


def own_task(model: str) -> str:
    """What it is judged by when nothing is named: a run's own task, or the recipe's default."""
    folder = Path(model)
    if not (folder / "run.json").is_file():
        return DEFAULT_TASK
    task = read_run(folder)["recipe"].get("task")
    if task is None:
        raise BadInput("the run learnt from data and has no task", where=model, hint="add --tasks")
    return str(task)


def plain(value: Any) -> Any:
    """The same in what JSON knows; NaN and infinity, which it does not, become null."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

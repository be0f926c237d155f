"""`alignzoo eval`: a run or a model evaluated on tasks, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from alignzoo.cli.options import Generation
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import shell_command, summary_table, to_plain
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.record import read_run

DEFAULT_TASK = "style"


@dataclass(kw_only=True)
class Evaluate(Generation):
    """Evaluate a run or a model on tasks."""

    model: Annotated[str, "folder of a run, or a model: zoo-tiny, a name on the Hub, a folder"]
    tasks: Annotated[
        str | None, "tasks to evaluate on, a,b [default: the run's own task, or style]"
    ] = None
    limit: Annotated[int, "maximum number of items per task", Ge(1)] = 200
    json: Annotated[bool, "print machine-readable JSON"] = False
    trust_remote_code: Annotated[bool, "run custom code that the model ships"] = False

    def main(self) -> None:
        """Evaluate, and print a table or JSON."""
        tasks = task_names(self.tasks) if self.tasks is not None else [own_task(self.model)]
        with quiet() as log:
            # With --json, standard output holds nothing else.
            ui = Terminal(log.err if self.json else log.out)
            with ui.phase("starting"):
                from alignzoo.evaluation import evaluate_model
            found = evaluate_model(
                self.model,
                tasks,
                limit=self.limit,
                seed=self.seed,
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                trust_remote_code=self.trust_remote_code,
                ui=ui,
            )
        if self.json:
            facts = {"model": self.model, "tasks": to_plain(found)}
            print(json.dumps(facts, indent=2, allow_nan=False))
        else:
            summaries = {task: one.summary for task, one in found.items()}
            console_for(sys.stdout).print(summary_table(summaries))


def task_names(text: str) -> list[str]:
    """Return the names in `a,b`, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadInput(f"option --tasks: {text!r} has an empty name in it")
    return list(dict.fromkeys(names))


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
    if str(task).endswith(".py"):
        raise BadInput(
            f"this run names a Python file as its task, {task!r}: it runs only if it is typed",
            where=model,
            hint=f"read it, then add --tasks {shell_command([str(task)])}",
        )
    return str(task)

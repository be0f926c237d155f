"""`alignzoo compare`: a grid of algorithms, tasks and seeds at one budget."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer
from annotated_types import Ge, Le

from alignzoo import BadInput, load_task
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import lines, shell_command
from alignzoo.cli.terminal import console_for
from alignzoo.options import build, split_names
from alignzoo.signals import catch_signals
from alignzoo_compare.grid import (
    BUDGETS,
    Grid,
    check_common,
    check_entries,
    default_entries,
    entries_for,
    read_grid,
    with_standard,
    without_copies,
)
from alignzoo_compare.tuning import MOST_TRIALS

DEFAULT_TASKS = "style,sums"


@dataclass
class CompareCommand:
    """Compare algorithms: one base, the same tasks, the same budget, several seeds.

    Each algorithm is tuned on a task's dev prompts, and reported on its test prompts.

    The same command takes up a comparison that was stopped.
    """

    algorithms: Annotated[
        list[str], "algorithms to compare, by name or Python file [default: all installed]"
    ] = field(default_factory=list)
    grid: Annotated[
        str | None, "YAML file with the grid: entries, tasks, seeds, budget, and so on"
    ] = None
    tasks: Annotated[str | None, f"tasks, a,b or a,OPTION=VALUE,b [default: {DEFAULT_TASKS}]"] = (
        None
    )
    seeds: Annotated[int | None, "seeds of each cell [default: 3]", Ge(1), Le(1000)] = None
    budget: Annotated[
        str | None,
        "budget of each run: small, medium, large, 1e13flops or 2000feedback [default: small]",
    ] = None
    track: Annotated[Literal["flops", "feedback"], "what small, medium and large are equal in"] = (
        "flops"
    )
    also: Annotated[
        str | None,
        "tasks that final runs are measured on besides, such as pairs,path=FILE,lm-eval:NAME",
    ] = None
    model: Annotated[str | None, "base of all runs [default: each task's embedded model]"] = None
    trials: Annotated[
        int | None,
        "settings that each algorithm tries on dev (1: its defaults) [default: 3]",
        Ge(1),
        Le(MOST_TRIALS),
    ] = None
    eval_size: Annotated[int | None, "prompts to evaluate [default: 200]", Ge(2)] = None
    curve: Annotated[
        int | None, "evaluations in the middle of each run, for curves [default: 0]", Ge(0)
    ] = None
    out: Annotated[
        str | None, "folder of the comparison [default: boards/TRACK or boards/GRID]"
    ] = None
    jobs: Annotated[
        int | None, "runs at a time [default: one for each GPU, or else each CPU]", Ge(1)
    ] = None
    ray: Annotated[
        str | None,
        "run the cells on a Ray cluster: its address, or auto",
    ] = None
    gpus_per_cell: Annotated[float, "GPUs that a cell needs on a Ray cluster", Ge(0)] = 0.0
    verify: Annotated[bool, "run a random finished cell again and compare its numbers"] = False
    allow_code: Annotated[
        bool, "let Python files that the grid's file names run, and rewards execute programs"
    ] = False

    positional: ClassVar[str] = "algorithms"

    def main(self) -> None:
        """Run the command."""
        name = Path(self.grid).stem if self.grid else self.track
        folder = Path(self.out or f"boards/{name}").expanduser()
        with interruptions(folder), quiet() as log:
            console = console_for(log.out)
            if self.verify:
                from alignzoo_compare.verify import verify_board

                verify_board(folder, console, allow_code=self.allow_code)
                return
            grid, notes = self.compose()
            lines(console, [f"not compared: {note}" for note in notes])
            from alignzoo_compare.board import open_board
            from alignzoo_compare.live import LiveTable
            from alignzoo_compare.runner import run_board

            with open_board(folder, grid) as board:
                workers = self.make_workers(folder)
                with LiveTable(board, console, workers.size) as table:
                    run_board(board, workers, table.show, allow_code=self.allow_code)
                from alignzoo_compare.report import write_report

                write_report(board, console)

    def compose(self) -> tuple[Grid, list[str]]:
        """Return the grid, and a line on each installed algorithm that is not compared.

        Flags override the file of the grid.
        """
        found = read_grid(Path(self.grid), allow_code=self.allow_code) if self.grid else {}
        notes: list[str] = []
        if self.algorithms:
            found["entries"] = entries_for(self.algorithms)
        elif not found.get("entries"):
            found["entries"], notes = default_entries()
        if self.tasks is not None or "tasks" not in found:
            found["tasks"] = split_names(self.tasks or DEFAULT_TASKS, "--tasks")
        if self.also is not None:
            found["also"] = split_names(self.also, "--also")
        for name in ("seeds", "budget", "model", "trials", "eval_size", "curve"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        budget = str(found.get("budget", "small"))
        settings: dict[str, Any] = {
            "seeds": 3,
            **found,
            "budget": BUDGETS[budget][self.track] if budget in BUDGETS else budget,
            "entries": with_standard(found["entries"]),
        }
        grid: Grid = build(Grid, settings, self.grid or "")
        check_entries(grid.entries, self.grid or "")
        check_common(grid.common, self.grid or "")
        kept, copies = without_copies(grid.entries, grid.common)
        grid, notes = replace(grid, entries=kept), [*notes, *copies]
        for name in grid.tasks:
            if "prompts" not in load_task(name, "--tasks").views:
                raise BadInput(
                    f"task {name!r} has no prompts to train on",
                    hint=f"to measure each result on it, add --also {name}",
                )
        for name in grid.also:
            load_task(name, "--also")
        _ = grid.track  # raises if the budget is malformed
        return grid, notes

    def make_workers(self, folder: Path) -> Any:
        """Return the workers that the options ask for."""
        if self.ray is not None:
            from alignzoo_compare.cluster import RayWorkers

            return RayWorkers(self.ray, self.gpus_per_cell, self.jobs)
        if self.gpus_per_cell:
            raise BadInput("option --gpus-per-cell: it is for a Ray cluster", hint="add --ray")
        import torch

        from alignzoo_compare.workers import LocalWorkers

        gpus = torch.cuda.device_count()
        return LocalWorkers(self.jobs or gpus or os.cpu_count() or 1, folder, gpus)


@contextmanager
def interruptions(folder: Path) -> Iterator[None]:
    """Turn a signal into the message that says how to go on, and its exit code."""
    try:
        with catch_signals():
            yield
    except KeyboardInterrupt as error:
        name = getattr(error, "name", "SIGINT")
        how = "interrupted" if name == "SIGINT" else f"interrupted by {name}"
        command = shell_command(["alignzoo", *sys.argv[1:]])
        kept = shell_command([str(folder)])
        print(
            f"alignzoo: {how}; what is finished is kept in {kept}; to go on:\n  {command}",
            file=sys.stderr,
        )
        raise typer.Exit(getattr(error, "exit_code", 130)) from None

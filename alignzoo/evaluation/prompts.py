"""The prompts of an evaluation: which they are, and what of them the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.algorithm import Traits
from alignzoo.data import (
    Codec,
    Prompts,
    dev_split,
    name_of_task,
    read_task_rows,
    template_values,
)
from alignzoo.errors import count
from alignzoo.run import Run
from alignzoo.ui import UI


def choose_prompts(run: Run) -> list[dict[str, Any]]:
    """Return the rows to complete: the task's held-out ones, or those of the data.

    There are none if the run evaluates nothing, its model does not generate, or its task measures
    the model by itself.
    """
    if run.recipe.eval_size == 0 or not Traits.of(run.algorithm).generates or measures(run):
        return []
    if run.task is not None and "prompts" in run.task.views:
        split = choose_split(run.task, run.recipe.eval_split)
        return read_task_rows(run.task, "prompts", split)[: run.recipe.eval_size]
    return run.data.prompts[: run.recipe.eval_size]


def measures(run: Run) -> bool:
    """Return True if the run's task measures the model by itself: see `measure_task`."""
    generates = Traits.of(run.algorithm).generates
    return run.recipe.eval_size > 0 and generates and hasattr(run.task, "measure")


def choose_split(task: Any, split: str) -> str:
    """Return the split to evaluate on: the one that is asked for, or for "dev" what stands for it.

    A task without a dev split is evaluated on `test`.
    """
    return dev_split(task) if split == "dev" else split


def note_missing_dev(task: Any | None, split: str, ui: UI) -> None:
    """Tell the user if a task's test split stands for the dev split that it does not have."""
    if task is not None and split != choose_split(task, split):
        ui.note(f"task {name_of_task(task)!r} has no dev split: it is evaluated on test")


def prompt_room(run: Run) -> int:
    """Return the most tokens of a prompt: those that are left of it in training."""
    recipe = run.recipe
    if run.algorithm.data is Prompts:
        return recipe.max_length - recipe.max_new_tokens
    return recipe.max_length - min(recipe.max_new_tokens, recipe.max_length // 2)


def note_cuts(run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Tell the user how many prompts and completions of the evaluation are cut, if any are."""
    room, new, limit = prompt_room(run), run.recipe.max_new_tokens, run.model.positions
    lengths = [len(ids) for ids in encode_prompts(run.codec, rows)]
    if cut := sum(length > room for length in lengths):
        run.ui.note(f"{count(cut, 'prompt')} of the evaluation truncated to {room:,} tokens")
    if limit and (short := sum(min(length, room) + new > limit for length in lengths)):
        run.ui.note(
            f"{count(short, 'completion')} of the evaluation cannot have {new:,} tokens: they end "
            f"at the last of the model's {limit:,} positions"
        )


def encode_prompts(
    codec: Codec, rows: Sequence[dict[str, Any]], room: int | None = None
) -> list[list[int]]:
    """Return the ids of the prompt of each row, at most `room` of them if that is given."""
    prompts = [codec.prompt(row["prompt"], template_values(row)) for row in rows]
    return prompts if room is None else [codec.cut_prompt(ids, room) for ids in prompts]

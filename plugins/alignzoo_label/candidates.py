"""Prompts with completions to choose from, and prompts to be answered, as they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from alignzoo import BadInput, Prompts, load_task
from alignzoo.data import Content, load_rows, read_task_rows
from alignzoo.errors import count
from alignzoo.files import digest, json_lines
from alignzoo.ui import UI
from alignzoo_label.answers import OWN

TEMPLATE = ("tools", "chat_template_kwargs")  # columns that are variables of a chat template
# Columns that a file of pairs or ratings may have beside its own.
READ = set("system system_prompt history messages text margin chosen_probability".split())


@dataclass(frozen=True)
class Candidates:
    """A prompt with different completions, from which one or two are shown.

    Attributes:
        prompt: text, or messages.
        completions: their texts.
        columns: other columns of the row that belong to the prompt.
        states: a frozen model's state of each completion, `[K, H]`, or None.
    """

    prompt: Content
    completions: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    states: Tensor | None = None

    @cached_property
    def key(self) -> str:
        """Return a digest of the prompt and the completions, the same in every session."""
        return digest(json_lines([self.prompt, *self.completions]))


def read_candidates(path: str, size: int, ui: UI) -> list[Candidates]:
    """Return the candidates of a file, `size` or more completions for each prompt.

    Rows have a prompt and `completions`, a list; or `chosen` and `rejected`; or one `completion`,
    and then those of equal prompts are taken together. Raise `BadInput` if there are none.
    """
    rows, report = load_rows(Prompts, path)
    for line in report.reasons():
        ui.note(line)
    texts: dict[str, dict[str, None]] = {}  # ordered sets of completions, by prompt
    first: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        key = json_lines([row["prompt"]])
        first.setdefault(key, row)
        found = [text for text in completions_of(row, f"{path}, row {number}") if is_text(text)]
        texts.setdefault(key, {}).update(dict.fromkeys(found))
    kept = [
        Candidates(first[key]["prompt"], tuple(some), file_columns(first[key]))
        for key, some in texts.items()
        if len(some) >= size
    ]
    if len(kept) < len(texts):
        few = len(texts) - len(kept)
        ui.note(f"{count(few, 'prompt')} left out: fewer than {size} different completions")
    if not kept:
        raise BadInput("no prompt has enough different completions to choose from", where=path)
    return kept


def completions_of(row: dict[str, Any], where: str) -> list[str]:
    """Return the completions of a row; raise `BadInput` if it has none."""
    if isinstance(row.get("completions"), list):
        found = row["completions"]
    else:
        found = [row[name] for name in ("chosen", "rejected", "completion") if row.get(name)]
    if not found:
        raise BadInput(
            "no completions in this row",
            where=where,
            hint="give it a column completions (a list), completion, or chosen and rejected; "
            "prompts that a model is to answer are --prompts",
        )
    texts = [value[-1].get("content") if isinstance(value, list) else value for value in found]
    if not all(isinstance(text, str) for text in texts):
        raise BadInput("a completion is neither text nor messages", where=where)
    return texts


def is_text(text: str) -> bool:
    """Return False for a blank text, and for half of a surrogate pair, which no file can hold."""
    return bool(text.strip()) and text.encode(errors="replace").decode() == text


def file_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a file's row that are variables of the chat template."""
    return {name: row[name] for name in TEMPLATE if row.get(name)}


def task_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a task's row that its score may read.

    Those that training would read as something else are left out.
    """
    return {name: value for name, value in row.items() if name not in OWN | READ}


def read_prompts(path: str | None, task: str | None, ui: UI) -> list[Candidates]:
    """Return the prompts of a file, or those of a task that training sees, without completions."""
    if path is not None:
        rows, report = load_rows(Prompts, path)
        for line in report.reasons():
            ui.note(line)
        if not rows:
            raise BadInput("no usable prompts", where=path)
        return [Candidates(row["prompt"], (), file_columns(row)) for row in rows]
    loaded = load_task(str(task))
    if "prompts" not in loaded.views:
        raise BadInput(f"task {task!r} has no prompts", hint="name a file: --prompts FILE")
    rows = read_task_rows(loaded, "prompts", "train")
    return [Candidates(row["prompt"], (), task_columns(row)) for row in rows]

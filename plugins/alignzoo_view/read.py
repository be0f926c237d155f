"""Read the completions in the folder of a run: `rollouts.jsonl` and `evals.jsonl`, checked.

A folder may be a stranger's, or damaged. What a run in progress is appending, or a crash cut off,
is a last line without its end, and is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from alignzoo import BadInput
from alignzoo.errors import one_line
from alignzoo.files import require_regular

Row = TypeVar("Row")


@dataclass
class DrawnCompletion:
    """A completion of training, as `rollouts.jsonl` has it.

    `credit` has the tokens as text, each with its advantage, None if the policy did not write it.
    `turns` of an episode are who wrote each, what it says, and its reward.
    """

    step: int
    round: int
    prompt_index: int
    prompt: str
    completion: str
    reward: float | None
    advantage: float | None
    length: int
    ended: bool
    rewards: dict[str, float | None] = field(default_factory=dict)
    credit: list[tuple[str, float | None]] | None = None
    turns: list[tuple[str, str, float | None]] | None = None


@dataclass
class EvaluatedCompletion:
    """The part of a row of `evals.jsonl` that is shown; of an episode, who wrote which turn."""

    phase: str
    step: int
    item: int
    prompt: str
    completion: str
    score: float | None
    length: int
    ended: bool
    turns: list[tuple[str, str]] | None = None


def read_drawn(run: Path) -> list[DrawnCompletion]:
    """Return the completions of training, none if there is no file."""
    return list(read_rows(run / "rollouts.jsonl", DrawnCompletion))


def read_evaluated(run: Path, phases: Collection[str]) -> list[EvaluatedCompletion]:
    """Return the completions of the evaluations that are finished, none if there is no file."""
    rows = read_rows(run / "evals.jsonl", EvaluatedCompletion)
    return [row for row in rows if row.phase in phases]


def read_rows(path: Path, cls: type[Row]) -> Iterator[Row]:
    """Yield the whole rows of a file of JSON lines; raise `BadInput` for a damaged one."""
    adapter = TypeAdapter(cls)
    try:
        if not path.exists():
            return
        require_regular(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield parse_row(adapter, line, f"{path}, line {number}")
    except OSError as error:
        raise BadInput(f"cannot be read: {one_line(error)}", where=str(path)) from None


def parse_row(adapter: TypeAdapter[Row], line: bytes, where: str) -> Row:
    """Return a line as a row; raise `BadInput` if it is damaged."""
    try:
        return adapter.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "/".join(map(str, first["loc"]))
        problem = f"{name}: {first['msg']}" if name else str(first["msg"])
        hint = "delete this line to see the others"
        raise BadInput(f"damaged: {problem:.200}", where=where, hint=hint) from None

"""Constitutions: the principles that answers are criticised, revised and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from alignzoo import Run
from alignzoo.data import Message
from alignzoo.errors import BadInput, nearest
from alignzoo.safe_yaml import read_yaml
from alignzoo_judges.rating import RATING_QUESTION

DEFAULT_FILE = Path(__file__).with_name("principles.yaml")
REQUIRED_FIELDS = ("critique", "revision", "question")
PRINCIPLE_FIELDS = ("name", *REQUIRED_FIELDS, "rating", "weight")
TURNS = ("user", "assistant")  # of an example, in turn


@dataclass(frozen=True)
class Principle:
    """Requests to a critic, a reviser and a judge; drawn in proportion to `weight`."""

    name: str
    critique: str
    revision: str
    question: str
    rating: str = RATING_QUESTION
    weight: float = 1.0


@dataclass(frozen=True)
class Constitution:
    """Principles, and example dialogues that show how to criticise and revise."""

    principles: tuple[Principle, ...]
    examples: tuple[tuple[Message, ...], ...] = ()

    def draw(self, run: Run, use: str, number: int, start: int, count: int) -> list[Principle]:
        """Draw a principle by weight for each of `count` rows of this process and round.

        The first row has index `start`. The same `use` and `number` give the same principles.
        """
        rank, weights = run.world.rank, [p.weight for p in self.principles]
        return [
            Random(run.seed_for("principle", use, number, run.round, rank, n)).choices(
                self.principles, weights
            )[0]
            for n in range(start, start + count)
        ]

    def record(self, run: Run) -> None:
        """Save the principles with the run; raise `BadInput` if a resumed run has others."""
        principles = [asdict(principle) for principle in self.principles]
        saved = run.record.set_fact_once("principles", principles)
        if saved != principles:
            raise BadInput(
                "cannot be resumed: the principles differ from those of the run",
                where=str(run.record.folder),
                hint="restore the original file, or start a new run",
            )

    @property
    def example_messages(self) -> list[Message]:
        """Return the messages of all examples."""
        return [message for example in self.examples for message in example]


def read_principles(path: str | Path | None = None) -> Constitution:
    """Read a constitution from a YAML file, by default the one that is shipped.

    Raise `BadInput` that names the principle and what is wrong with it.
    """
    file = Path(path or DEFAULT_FILE).expanduser()
    loaded = read_yaml(file, "principles file")
    if not isinstance(loaded, dict) or "principles" not in loaded:
        raise _bad(file, "a principles file has a list named `principles`")
    for key in loaded:
        if key not in ("principles", "examples"):
            raise _bad(file, f"unknown key {key!r}", nearest(str(key), ("principles", "examples")))
    entries = loaded["principles"]
    if not isinstance(entries, list) or not entries:
        raise _bad(file, "the list `principles` is empty", "write at least one")
    principles = tuple(_principle(file, n, entry) for n, entry in enumerate(entries, start=1))
    names = [principle.name for principle in principles]
    for name in names:
        if names.count(name) > 1:
            raise _bad(file, f"two principles are named {name!r}")
    examples = loaded.get("examples") or []
    if not isinstance(examples, list):
        raise _bad(file, "`examples` is a list of dialogues")
    return Constitution(
        principles, tuple(_example(file, n, each) for n, each in enumerate(examples, start=1))
    )


def _principle(file: Path, number: int, entry: Any) -> Principle:
    """Check the fields of one principle."""
    where = f"{file}, principle {number}"
    if not isinstance(entry, Mapping):
        raise BadInput("a principle is a mapping of fields", where=where, hint=_fields())
    name = entry.get("name", str(number))
    if "name" in entry:
        where += f" ({name})"
    for field in entry:
        if field not in PRINCIPLE_FIELDS:
            hint = nearest(str(field), PRINCIPLE_FIELDS)
            raise BadInput(f"unknown field {field!r}", where=where, hint=hint)
    for field in REQUIRED_FIELDS:
        if field not in entry:
            raise BadInput(f"the field {field!r} is missing", where=where, hint=_fields())
    texts = {field: entry[field] for field in (*REQUIRED_FIELDS, "rating") if field in entry}
    for field, text in {"name": name, **texts}.items():
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"the field {field!r} is not text", where=where)
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:
        raise BadInput(f"the weight {weight!r} is not a positive number", where=where)
    return Principle(name, weight=float(weight), **{k: t.strip() for k, t in texts.items()})


def _example(file: Path, number: int, entry: Any) -> tuple[Message, ...]:
    """Check that the turns alternate, the user's first and the assistant's last."""
    valid = isinstance(entry, list) and len(entry) > 0 and len(entry) % 2 == 0
    for i, message in enumerate(entry if valid else ()):
        valid = (
            valid
            and isinstance(message, Mapping)
            and message.get("role") == TURNS[i % 2]
            and isinstance(message.get("content"), str)
        )
    if not valid:
        raise BadInput(
            "an example is a list of messages with role and content, user and assistant in turn",
            where=f"{file}, example {number}",
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in entry)


def _fields() -> str:
    required = ", ".join(REQUIRED_FIELDS)
    return f"a principle has {required}, and may have name, rating, weight"


def _bad(file: Path, problem: str, hint: str | None = None) -> BadInput:
    return BadInput(problem, where=str(file), hint=hint)

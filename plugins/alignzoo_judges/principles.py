"""A constitution: the principles that answers are criticised, revised and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from alignzoo.errors import BadInput, nearest
from alignzoo.files import read_yaml
from alignzoo_judges.rate import QUESTION as RATING

if TYPE_CHECKING:
    from alignzoo.run.run import Run

DEFAULT = Path(__file__).with_name("principles.yaml")
NEEDED = ("critique", "revision", "question")
KNOWN = ("name", *NEEDED, "rating", "weight")
ROLES = ("user", "assistant")
Message = dict[str, str]


@dataclass(frozen=True)
class Principle:
    """What is asked of a critic, of a reviser and of a judge; drawn in proportion to `weight`."""

    name: str
    critique: str
    revision: str
    question: str
    rating: str = RATING
    weight: float = 1.0


@dataclass(frozen=True)
class Constitution:
    """Principles, and dialogues that show how one criticises and revises."""

    principles: tuple[Principle, ...]
    examples: tuple[tuple[Message, ...], ...] = ()

    def draw(self, run: Run, use: str, number: int, start: int, count: int) -> list[Principle]:
        """A principle, by weight, for each of `count` rows of this process and round, of which the
        first is the `start`th; always the same for one `use` and `number`."""
        index, weights = run.world.rank, [p.weight for p in self.principles]
        return [
            Random(run.seed_for("principle", use, number, run.round, index, n)).choices(
                self.principles, weights
            )[0]
            for n in range(start, start + count)
        ]

    def keep(self, run: Run) -> None:
        """Write the principles into the run's record; one that goes on must have the same."""
        said = [asdict(principle) for principle in self.principles]
        before = run.record.facts.setdefault("principles", said)
        if before != said:
            raise BadInput(
                "cannot be resumed: the principles are not those that the run began with",
                where=str(run.record.folder),
                hint="give it the file as it was, or begin a new run",
            )

    @property
    def shown(self) -> list[Message]:
        """The messages of all examples."""
        return [message for example in self.examples for message in example]


def read_principles(path: str | Path | None = None) -> Constitution:
    """A constitution from a YAML file, the shipped one unless another is named, or `BadInput` that
    names the principle and what it lacks."""
    file = Path(path or DEFAULT).expanduser()
    loaded = read_yaml(file, "file of principles")
    if not isinstance(loaded, dict) or "principles" not in loaded:
        raise _bad(file, "a file of principles has a list named `principles`")
    for key in loaded:
        if key not in ("principles", "examples"):
            raise _bad(file, f"unknown key {key!r}", nearest(str(key), ("principles", "examples")))
    listed = loaded["principles"]
    if not isinstance(listed, list) or not listed:
        raise _bad(file, "the list `principles` is empty", "write at least one")
    principles = tuple(_principle(file, n, entry) for n, entry in enumerate(listed, start=1))
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
    where = f"{file}, principle {number}"
    if not isinstance(entry, Mapping):
        raise BadInput("a principle is a mapping of fields", where=where, hint=_fields())
    name = entry.get("name", str(number))
    if "name" in entry:
        where += f" ({name})"
    for field in entry:
        if field not in KNOWN:
            raise BadInput(f"unknown field {field!r}", where=where, hint=nearest(str(field), KNOWN))
    for field in NEEDED:
        if field not in entry:
            raise BadInput(f"the field {field!r} is missing", where=where, hint=_fields())
    texts = {field: entry[field] for field in (*NEEDED, "rating") if field in entry}
    for field, text in {"name": name, **texts}.items():
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"the field {field!r} is not a text", where=where)
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:
        raise BadInput(f"the weight {weight!r} is not a positive number", where=where)
    return Principle(name, weight=float(weight), **{k: t.strip() for k, t in texts.items()})


def _example(file: Path, number: int, entry: Any) -> tuple[Message, ...]:
    """Turns of a dialogue, the user's first and the assistant's last."""
    fits = isinstance(entry, list) and len(entry) > 0 and len(entry) % 2 == 0
    for place, message in enumerate(entry if fits else ()):
        fits = (
            fits
            and isinstance(message, Mapping)
            and message.get("role") == ROLES[place % 2]
            and isinstance(message.get("content"), str)
        )
    if not fits:
        raise BadInput(
            "an example is a list of messages with role and content, user and assistant in turn",
            where=f"{file}, example {number}",
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in entry)


def _fields() -> str:
    return f"a principle has {', '.join(NEEDED)}, and may have name, rating, weight"


def _bad(file: Path, problem: str, hint: str | None = None) -> BadInput:
    return BadInput(problem, where=str(file), hint=hint)

"""The value of `--data`: one data set, or several, each with or without a weight.

`a.jsonl:0.7,owner/name:0.3` on the command line, `{a.jsonl: 0.7, owner/name: 0.3}` in a recipe
file, where names are taken as they are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.data.formats import READERS
from alignzoo.errors import BadInput
from alignzoo.files import looks_like_path

HINT = "write a.jsonl:0.7,b.jsonl:0.3 (fractions of an epoch), or a.jsonl,b.jsonl for all of both"
SUFFIXES = (*READERS, ".gz")


@dataclass(frozen=True)
class DataSpec:
    """The name of one data set, and its weight if it is one of several with weights."""

    name: str
    weight: float | None = None

    @property
    def stem(self) -> str:
        """The name without folders and extensions, for runs and metrics."""
        # Unlike in the name of a model (Qwen2.5-0.5B), a dot begins the extensions.
        return Path(self.name).name.partition(".")[0] or self.name


def parse_data(data: str | Mapping[str, Any]) -> list[DataSpec]:
    """Parse the names and weights of data sets; raise `BadInput` for a malformed value.

    A name that exists as a path is taken literally, commas and colons included. Otherwise a comma
    separates data sets, and the last colon of each precedes its weight, unless the rest is part of
    a path (`C:\\data`, `https://`) or, not being a number, the configuration and the split of a
    data set on the Hub (`openai/gsm8k:main@test`). A single data set has no weight.
    """
    if isinstance(data, str):
        pairs = [_split(piece) for piece in _pieces(data)]
        if len(pairs) == 1 and pairs[0][1] and not _is_local(pairs[0][0]):
            pairs = [(data, None)]  # a configuration may be a number
    else:
        pairs = list(data.items())
    sources = [DataSpec(name, _weight(name, weight)) for name, weight in pairs]
    unweighted = [source.name for source in sources if source.weight is None]
    if not all(source.name for source in sources) or not sources:
        raise BadInput(f"option --data: {data!r} has an empty name", hint=HINT)
    if len(sources) == 1 and not unweighted:
        raise BadInput(
            f"option --data: a weight for {sources[0].name}, but no other data set",
            hint=HINT,
        )
    if unweighted and len(unweighted) < len(sources):
        raise BadInput(
            f"option --data: no weight for {', '.join(unweighted)}, but for others",
            hint="give all of them a weight or none; with none, an epoch has every row once",
        )
    return sources


def is_path(name: str) -> bool:
    """Return True if a name means a file or a folder, there or not, and nothing on the Hub."""
    return looks_like_path(name, SUFFIXES)


def is_there(name: str) -> bool:
    """Return True if there is a file or folder of that name."""
    return os.path.exists(os.path.expanduser(name))


def _pieces(text: str) -> list[str]:
    """Split the text at its commas, except those in the names of files that exist."""
    if is_there(text):
        return [text]
    rest, found = text.split(","), []
    while rest:
        longer = (n for n in range(len(rest), 1, -1) if is_there(_split(",".join(rest[:n]))[0]))
        n = next(longer, 1)
        found.append(",".join(rest[:n]).strip())
        rest = rest[n:]
    return found


def _split(piece: str) -> tuple[str, str | None]:
    """Split a name from its weight, if it has one."""
    name, colon, weight = piece.rpartition(":")
    if not colon or is_there(piece) or "/" in weight or "\\" in weight:
        return piece, None
    if _is_local(name) or _is_number(weight):
        return name, weight
    return piece, None


def _is_local(name: str) -> bool:
    return is_there(name) or is_path(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _weight(name: str, given: Any) -> float | None:
    if given is None:
        return None
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight) or weight <= 0:
        raise BadInput(
            f"option --data: the weight of {name} is {given!r}, not a number above 0", hint=HINT
        )
    return weight

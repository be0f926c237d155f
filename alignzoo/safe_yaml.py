"""YAML as recipes and principles need it: plain values, each key once, nothing that explodes.

Dates and times stay text, as do numbers in base 60: YAML 1.1 reads `12:30` as 750.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from alignzoo.errors import BadInput, first_line
from alignzoo.files import require_regular

MOST_BYTES = 500_000  # bytes of a file
DEEPEST = 30  # lists and mappings inside each other
MOST = 20_000  # values, with those that aliases repeat
LONGEST_NUMBER = 40  # characters
PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)$")
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.[0-9_]*(?:[eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$", re.I)


def refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    """Return the error for something at a place in the text."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """Construct plain values alone; a mapping has each key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in getattr(node, "value", ()):
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise refusal(f"the key {key.value[:60]!r} is there twice", key.start_mark)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if re.search("[\ud800-\udfff]", value):
            raise refusal("half of a surrogate pair is no character", node.start_mark)
        if node.tag.endswith((":int", ":float")) and len(value) > LONGEST_NUMBER:
            raise refusal(f"a number of {len(value):,} characters", node.start_mark)
        return value


_PREFIX = "tag:yaml.org,2002:"
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_PREFIX) in PLAIN_TAGS
}
_OWN = {f"{_PREFIX}int": INTEGER, f"{_PREFIX}float": FLOAT}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _OWN.get(tag, expression))
        for tag, expression in resolvers
        if tag.removeprefix(_PREFIX) in PLAIN_TAGS
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, kind: str) -> Any:
    """Return the value of a YAML file; raise `BadInput` that names `kind`, the file and the line.

    `kind` is what the file is in messages: "recipe file".
    """
    try:
        require_regular(path)
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"a {kind} has at most {MOST_BYTES:,} bytes", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"no such {kind}", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {error}", where=str(path)) from None
    return load_yaml(text, str(path))


def load_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raise `BadInput` with the line for what is not plain.

    Its size is checked before anything is built.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem: str = getattr(error, "problem", None) or first_line(error)
        raise BadInput(f"not YAML: {problem[:200]}", where=place) from None


def _check_size(text: str) -> None:
    """Raise an error if the document is too deep, or too large with its aliases expanded."""
    sizes: dict[str, int | None] = {}  # of what an anchor names; None while it is open
    stack: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1))
            sizes |= {event.anchor: None} if event.anchor else {}
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = stack.pop()
            sizes |= {anchor: size} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            known = sizes.get(name, 1)
            if known is None:
                raise refusal(f"the anchor {name[:60]!r} contains itself", event.start_mark)
            size = known
        anchor, before = stack[-1]
        stack[-1] = (anchor, before + size)
        if before + size > MOST or len(stack) > DEEPEST:
            raise refusal(
                f"more than {MOST:,} values" if before + size > MOST else "nested too deep",
                event.start_mark,
            )

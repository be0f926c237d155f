"""The plugins of installed packages: which there are, which are considered, and which one is meant.

Third-party packages are left out by `alignzoo -p no:NAME` (a plugin or a package), and by
`ALIGNZOO_PLUGINS=a,b`, which lists the only ones that are considered.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from alignzoo.discovery.sources import find_fault, locate_module, summarize
from alignzoo.errors import BadInput, nearest, one_line

GROUPS = (
    "algorithms", "tasks", "environments", "rewards", "judges", "samplers", "optimizers", "addons",
    "commands",
)  # fmt: skip
OWN = "alignzoo"
PINNED = "ALIGNZOO_PLUGINS"
BLOCKED = "ALIGNZOO_BLOCKED_PLUGINS"  # set by -p, for the processes that a command starts


@dataclass(frozen=True)
class Found:
    """An installed plugin: its kind (one of `GROUPS`), its name and its entry point.

    It has not been imported; `load_plugin` imports it.
    """

    kind: str
    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """Return the name of the distribution that provides it."""
        return name_of(self.entry.dist) or self.entry.module.partition(".")[0]

    @property
    def version(self) -> str:
        """Return the version of that distribution, or "unknown"."""
        try:
            return str(self.entry.dist.version) if self.entry.dist else "unknown"
        except (KeyError, OSError):
            return "unknown"

    @property
    def full_name(self) -> str:
        """Return `PACKAGE:NAME`, which chooses it among those that other packages call NAME."""
        return f"{self.package}:{self.name}"

    @property
    def source(self) -> Path | None:
        """Return the file that defines it, without importing it; None if there is none."""
        return locate_module(self.entry.module)

    @property
    def summary(self) -> str:
        """Return the first line of its docstring, read from the source; "" if there is none."""
        return summarize(self.source, self.entry.attr)

    def matches(self, text: str) -> bool:
        """Return True if `text` is its NAME or PACKAGE:NAME."""
        package, colon, name = text.rpartition(":")
        return name == self.name and (not colon or canonical(package) == canonical(self.package))


def name_of(dist: Distribution | None) -> str:
    """Return the name of a distribution, "" if its metadata has none."""
    try:
        return str(dist.name or "") if dist is not None else ""
    except (KeyError, OSError, ValueError):
        return ""


def canonical(package: str) -> str:
    """Return the name of a package as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", package).lower()


def scan() -> tuple[list[Found], list[str]]:
    """Return the plugins of all installed packages, and what is wrong with packages' metadata."""
    return _scan(tuple(sys.path))


@cache
def _scan(path: tuple[str, ...]) -> tuple[list[Found], list[str]]:
    """Scan the packages on Python's path, which is the key of the cache alone."""
    found: list[Found] = []
    problems: list[str] = []
    seen = set()
    for dist in distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
            if "alignzoo." not in text or canonical(name_of(dist)) in seen:
                continue
            seen.add(canonical(name_of(dist)))
            entries = [entry for entry in dist.entry_points if entry.group.startswith("alignzoo.")]
        except Exception as error:  # whatever a damaged package raises, the others are found
            label = name_of(dist) or str(getattr(dist, "_path", "of unknown name"))
            problems.append(f"package {label}: its entry points cannot be read: {one_line(error)}")
            continue
        for entry in entries:
            fault = _fault_of(entry)
            if fault:
                problems.append(f"package {name_of(dist)}: {fault}")
            else:
                found.append(Found(entry.group.removeprefix("alignzoo."), entry.name, entry))
    return sorted(found, key=lambda one: (one.name, one.package)), problems


def _fault_of(entry: EntryPoint) -> str:
    """Return what is wrong with an entry point as it is written, or ""."""
    kind = entry.group.removeprefix("alignzoo.")
    if kind not in GROUPS:
        hint = nearest(kind, GROUPS)
        return f"{entry.name!r} is under {entry.group!r}, which is no kind of plugin. {hint}"
    try:
        complete = bool(entry.module and entry.attr)
    except AttributeError:
        complete = False
    written = f"{entry.name} = {entry.value}"
    return "" if complete else f"{written!r} does not name a class; write NAME = module:Class"


def discover(kind: str) -> dict[str, Found]:
    """Return the plugins of a kind by the shortest name that chooses each, sorted.

    That is NAME, or PACKAGE:NAME if several packages claim the name.
    """
    claims = _claims(kind)
    return {
        name if len(found) == 1 else one.full_name: one
        for name, found in claims.items()
        for one in found
    }


def find_plugin(kind: str, name: str) -> Found:
    """Return an installed plugin by NAME or PACKAGE:NAME.

    Raise `BadInput` if there is none, with similar names, or if several packages claim the name.
    """
    found = [one for one in _considered(kind) if one.matches(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(_clash(found), hint=_ways_out(found))
    left_out = [one for one in scan()[0] if one.kind == kind and one.matches(name)]
    if left_out:
        raise BadInput(
            f"{kind[:-1]} {name!r} of package {left_out[0].package} is left out",
            hint=f"by {'-p no:NAME' if _is_blocked(left_out[0]) else PINNED}",
        )
    raise BadInput(f"unknown {kind[:-1]} {name!r}", hint=nearest(name, discover(kind)))


def is_plugin(kind: str, name: str) -> bool:
    """Return True if a name is an installed plugin's, or the path of a Python file."""
    return name.endswith(".py") or any(one.matches(name) for one in _considered(kind))


def find_clashes(kind: str) -> list[str]:
    """Return a line for each name that several packages claim."""
    return [
        f"{_clash(found)}; {_ways_out(found)}" for found in _claims(kind).values() if len(found) > 1
    ]


def find_problems() -> list[str]:
    """Return a line for everything that is wrong with what is installed: damaged packages, names
    that several claim, plugins that cannot be imported."""
    problems = list(scan()[1])
    plugins = {canonical(one.package) for one in scan()[0]}
    problems += [
        f"{PINNED} lists {name!r}, and no installed package of that name has plugins"
        for name in _listed(PINNED)
        if canonical(name) not in plugins
    ]
    for kind in GROUPS:
        problems += find_clashes(kind)
        for one in _considered(kind):
            fault = find_fault(one.entry.module, one.entry.attr)
            if fault:
                problems.append(
                    f"{kind[:-1]} {one.name!r} of package {one.package} cannot be used: {fault}"
                )
    return problems


@contextmanager
def blocking(names: Sequence[str]) -> Iterator[None]:
    """Leave plugins out, by their names or by those of their packages, in the block.

    Processes that are started in it leave them out too. Raise `BadInput` for a name of neither.
    """
    for name in names:
        if not any(_is_named(one, name) for one in scan()[0]):
            known = {known for one in scan()[0] for known in (one.name, one.package)}
            raise BadInput(
                f"option -p: there is no plugin or package {name!r}", hint=nearest(name, known)
            )
    before = os.environ.get(BLOCKED)
    if names:
        os.environ[BLOCKED] = ",".join([*_listed(BLOCKED), *names])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(BLOCKED, None)
        else:
            os.environ[BLOCKED] = before


def list_blocked() -> list[str]:
    """Return the names that are left out in this block of `blocking`."""
    return _listed(BLOCKED)


def _claims(kind: str) -> dict[str, list[Found]]:
    """Return the plugins that claim each name."""
    claims: dict[str, list[Found]] = {}
    for one in _considered(kind):
        claims.setdefault(one.name, []).append(one)
    return claims


def _considered(kind: str) -> list[Found]:
    """Return the plugins of a kind that are neither blocked nor left out by a list of packages."""
    pinned = {OWN, *map(canonical, _listed(PINNED))}
    return [
        one
        for one in scan()[0]
        if one.kind == kind
        and (PINNED not in os.environ or canonical(one.package) in pinned)
        and not _is_blocked(one)
    ]


def _is_blocked(one: Found) -> bool:
    return any(_is_named(one, name) for name in _listed(BLOCKED))


def _is_named(one: Found, name: str) -> bool:
    return one.matches(name) or canonical(name) == canonical(one.package)


def _listed(variable: str) -> list[str]:
    """Return the names that an environment variable lists."""
    names = os.environ.get(variable, "").split(",")
    return [name.strip() for name in names if name.strip()]


def _clash(found: Sequence[Found]) -> str:
    claims = " and ".join(f"{one.package} ({one.entry.value})" for one in found)
    return f"{found[0].kind[:-1]} {found[0].name!r} is claimed by {claims}"


def _ways_out(found: Sequence[Found]) -> str:
    names = list(dict.fromkeys(one.full_name for one in found))
    if len(names) == 1:
        return f"uninstall {found[0].package}, or leave it out: alignzoo -p no:{found[0].package}"
    return f"write {' or '.join(names)}, or leave a package out: alignzoo -p no:PACKAGE"

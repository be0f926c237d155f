"""Find plugins by name, among the entry points of installed packages or in a Python file.

Discovery reads entry points and imports nothing; only the plugin that a run names is imported, so
that a broken package does not affect the others. `alignzoo.hooks` registers plugins for a run.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from alignzoo.errors import BadInput, nearest

PROJECT = "alignzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
GROUPS = ("algorithms", "tasks", "rewards", "judges", "samplers", "addons", "commands")


@dataclass(frozen=True)
class Found:
    """An installed plugin: its kind (one of `GROUPS`), its name and its entry point.

    It has not been imported; only `load` imports it.
    """

    kind: str
    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """Return the name of the distribution that provides it."""
        return self.entry.dist.name if self.entry.dist else self.entry.module.partition(".")[0]

    @property
    def version(self) -> str:
        """Return the version of that distribution, or "unknown"."""
        return self.entry.dist.version if self.entry.dist else "unknown"

    @property
    def source(self) -> Path | None:
        """Return the file that defines it, without importing it or its package; None if there is
        none."""
        path: list[str] | None = None
        spec = None
        parts = self.entry.module.split(".")
        for i in range(len(parts)):
            spec = PathFinder.find_spec(".".join(parts[: i + 1]), path)
            if spec is None:
                return None
            path = list(spec.submodule_search_locations or [])
        return Path(spec.origin) if spec and spec.origin else None

    @property
    def summary(self) -> str:
        """Return the first line of its docstring, read from the source; "" if there is none."""
        try:
            tree = ast.parse(self.source.read_text(encoding="utf-8")) if self.source else None
        except (OSError, SyntaxError, ValueError):
            return ""
        for node in tree.body if tree else []:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == self.entry.attr:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return ""

    def load(self) -> Any:
        """Import and return it. Raise `BadInput` that names the package if the import fails."""
        try:
            return self.entry.load()
        except Exception as error:
            raise BadInput(
                f"{self.kind[:-1]} {self.name!r} of package {self.package} cannot be imported: "
                f"{type(error).__name__}: {error}",
                hint=f"the other plugins are unaffected; fix or uninstall {self.package}",
            ) from error


@cache
def discover(kind: str) -> dict[str, Found]:
    """Return all plugins of a kind by name, sorted.

    Raise `BadInput` if two packages claim one name.
    """
    found: dict[str, Found] = {}
    for entry in entry_points(group=f"alignzoo.{kind}"):
        new = Found(kind, entry.name, entry)
        old = found.get(entry.name)
        if old and (old.entry.value, old.package) != (entry.value, new.package):
            raise BadInput(
                f"{kind[:-1]} {entry.name!r} is claimed by two packages: "
                f"{old.package} ({old.entry.value}) and {new.package} ({entry.value})",
                hint="uninstall one of them",
            )
        found[entry.name] = new
    return dict(sorted(found.items()))


def find_plugin(kind: str, name: str) -> Found:
    """Return an installed plugin by its name, or raise `BadInput` with similar names."""
    found = discover(kind)
    if name not in found:
        raise BadInput(f"unknown {kind[:-1]} {name!r}", hint=nearest(name, found))
    return found[name]


def load_plugin(kind: str, name: str) -> type:
    """Import and return the class of a plugin, by its name or the path of a Python file.

    Raise `BadInput` if it does not exist or cannot be imported.
    """
    if name.endswith(".py"):
        return load_plugin_file(Path(name), kind)
    return find_plugin(kind, name).load()


def plugin_source(kind: str, name: str) -> tuple[str, str, Path | None]:
    """Return `(package, version, path)` of a plugin, for the record of a run.

    `path` is a Python file, or the folder that holds the module of a package.
    """
    if name.endswith(".py"):
        return Path(name).stem, "file", Path(name)
    found = find_plugin(kind, name)
    return found.package, found.version, found.source.parent if found.source else None


def load_plugin_file(path: Path, kind: str = "algorithms") -> type:
    """Import a Python file and return its one plugin class.

    That is the class with hook methods, or of kind "judges" the one with a method `answers`. Raise
    `BadInput` if the file cannot be imported, or holds no such class or several.
    """
    if not path.is_file():
        raise BadInput("no such file", where=str(path))
    module_name = f"alignzoo_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because `@dataclass` looks its module up in `sys.modules`.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise BadInput(
            f"cannot be imported: {type(error).__name__}: {error}", where=f"{path}{line}"
        ) from error
    candidates = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module_name
        and (hasattr(value, "answers") if kind == "judges" else hook_methods(value))
    ]
    # A base class of another candidate is not the plugin.
    leaves = [c for c in candidates if not any(issubclass(d, c) and d is not c for d in candidates)]
    if len(leaves) != 1:
        names = ", ".join(c.__name__ for c in leaves) or "none"
        raise BadInput(
            "a plugin file holds exactly one class with "
            f"{'a method `answers`' if kind == 'judges' else '@hookimpl methods'}; found {names}",
            where=str(path),
        )
    return leaves[0]


def hook_methods(plugin: Any) -> list[str]:
    """Return the names of the methods marked `@hookimpl`, without evaluating any property."""
    owner = plugin if isinstance(plugin, type) else type(plugin)
    names = [name for cls in owner.__mro__ for name in vars(cls)]
    return [
        name
        for name in dict.fromkeys(names)
        if hasattr(inspect.getattr_static(owner, name), f"{PROJECT}_impl")
    ]

"""The import graph of the project's files, imports for typing counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "alignzoo").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the dotted name of a file of the core or of a plugin."""
    top = ROOT if path.is_relative_to(ROOT / "alignzoo") else ROOT / "plugins"
    return ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")


FILES: Mapping[str, Path] = {module_of(path): path for path in [*CORE, *PLUGINS]}


def imported_names(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `(module, name)` of every absolute import in a file, wherever it stands in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield node.module, alias.name


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules of the project that a file imports, resolved to files."""
    found = set()
    for module, name in imported_names(path):
        target = f"{module}.{name}" if f"{module}.{name}" in FILES else module
        if target in FILES:
            found.add(target)
    return frozenset(found - {module_of(path)})


def reachable(start: str) -> set[str]:
    """Return every module that a module imports, directly or through others."""
    seen: set[str] = set()
    left = list(imports(FILES[start]))
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += imports(FILES[module])
    return seen


def room_of(module: str) -> str:
    """Return the part of the core that a module belongs to: a package, or a file of its own."""
    return module.split(".")[1] if "." in module else module

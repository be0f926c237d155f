"""The files that a plugin is made of, found without importing it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from alignzoo.errors import one_line

CORE = "alignzoo"  # its hash is a fingerprint of every run
FAMILY = "alignzoo_"  # packages of plugins that others build on begin so


def locate_module(module: str) -> Path | None:
    """Return the file of a module, without importing it or its package; None if it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is not None:
        return Path(file)
    path: list[str] | None = None
    spec = None
    parts = module.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin else None


def package_files(module: str) -> dict[str, Path]:
    """Return the files of a plugin in a package, by module.

    They are its own, and those that it imports from its package or from one that is named
    `alignzoo_*`.
    """
    top = module.partition(".")[0]

    def locate(name: str) -> Path | None:
        first = name.partition(".")[0]
        return locate_module(name) if first == top or first.startswith(FAMILY) else None

    return _reach(module, locate)


def plain_files(path: Path) -> dict[str, Path]:
    """Return the files of a plugin in a plain file, by module.

    They are that file, and those that it imports from its folder or from packages that are named
    `alignzoo_*`.
    """

    def locate(name: str) -> Path | None:
        if name == path.stem:
            return path
        if name.partition(".")[0] == CORE:
            return None
        beside = path.parent.joinpath(*name.split("."))
        for file in (beside.with_name(f"{beside.name}.py"), beside / "__init__.py"):
            if file.is_file():
                return file
        return locate_module(name) if name.startswith(FAMILY) else None

    return _reach(path.stem, locate)


def _reach(start: str, locate: Callable[[str], Path | None]) -> dict[str, Path]:
    """Return the modules that `start` imports directly or through others, as far as located."""
    found: dict[str, Path] = {}
    left = [start]
    while left:
        name = left.pop()
        path = locate(name) if name not in found else None
        if path is not None and path.suffix == ".py" and path.is_file():
            found[name] = path
            left += imported_modules(path, name)
    return found


def imported_modules(path: Path, module: str) -> Iterator[str]:
    """Yield the modules that a file imports anywhere in it, with the packages that they are in.

    Some may not exist: `from a import b` yields `a.b`, whatever `b` is.
    """
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    names = [package]
    for file in (path, path.with_suffix(".pyi")):  # a package that imports lazily lists names there
        for node in ast.walk(parse_file(file)) if file.is_file() else ():
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in filter(None, names):
        parts = name.split(".")
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def parse_file(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file, an empty one if it cannot be parsed."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def summarize(path: Path | None, attribute: str) -> str:
    """Return the first line of the docstring of a class or function in a file, "" if none."""
    for node in parse_file(path).body if path is not None else []:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def find_fault(module: str, attribute: str) -> str:
    """Return why a plugin cannot be imported, as far as its source shows; "" if it shows nothing.

    Nothing is imported: what happens while a module runs is not seen.
    """
    path = locate_module(module)
    if path is None:
        return f"there is no module {module}"
    if path.suffix != ".py":
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{path}{line}: {one_line(error)}"
    for node in tree.body:
        for name in _tops(node):
            if not _exists(name):
                return f"{path}, line {node.lineno}: imports {name}, which is not installed"
    names = {*_bound(tree)}
    if attribute and not names & {attribute.partition(".")[0], "*", "__getattr__"}:
        return f"{path}: there is no {attribute}"
    return ""


def _tops(node: ast.stmt) -> list[str]:
    """Return the top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def _exists(top: str) -> bool:
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file binds anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)

"""Import a plugin, by name or from a Python file, and name the one that fails."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from alignzoo.discovery.api import check_api_version, hook_methods
from alignzoo.discovery.checked import checked_version
from alignzoo.discovery.installed import OWN, find_plugin
from alignzoo.discovery.sources import FAMILY, locate_module, package_files, plain_files
from alignzoo.errors import BadInput, one_line
from alignzoo.fingerprints import hash_files
from alignzoo.signals import is_interruption

FUNCTION = "python:"
# The method by which a class in a file is known. Those of other kinds have hooks.
METHODS = {
    "tasks": "score",
    "environments": "step",
    "judges": "answers",
    "optimizers": "alignzoo_optimizer",
    "commands": "main",
}


@dataclass(frozen=True)
class Loaded:
    """A plugin that a run has loaded, as `run.json` records it.

    Args:
        kind: one of `GROUPS`.
        name: as it was asked for: NAME, PACKAGE:NAME, or the path of a file.
        package: the distribution that provides it, or the name of the file or module.
        version: of that distribution; "file" for a file or a function.
        sha256: of its source files; see `alignzoo.discovery.sources`.
        checked: the version of the laws that these sources have passed here (`alignzoo check`).
    """

    kind: str
    name: str
    package: str
    version: str
    sha256: str | None
    checked: int | None = None


# What is recorded in each block of `recording`, the innermost last.
_recordings: list[dict[tuple[str, str], Loaded]] = []
# Files, and folders with a slash at the end, of what was loaded, and whose they are.
_owners: dict[str, str] = {}
# Modules of plain files, with the sources that they were made of.
_modules: dict[Path, tuple[str | None, ModuleType]] = {}


@contextmanager
def recording() -> Iterator[dict[tuple[str, str], Loaded]]:
    """Record the plugins that are loaded in the block, by kind and name.

    A block within it records its own.
    """
    _recordings.append({})
    try:
        yield _recordings[-1]
    finally:
        _recordings.pop()


def load_plugin(kind: str, name: str) -> type:
    """Import and return the class of a plugin: NAME, PACKAGE:NAME or the path of a Python file.

    Raise `BadInput` if it does not exist, cannot be imported, or is for a newer version of the API.
    """
    if name.endswith(".py"):
        return load_plugin_file(Path(name), kind)
    found = find_plugin(kind, name)
    owner = f"{kind[:-1]} {found.name!r} of package {found.package}"
    _own_package(found.entry.module, found.package)
    with _importing(
        f"{owner} ", hint=f"the other plugins are unaffected; fix or uninstall {found.package}"
    ):
        plugin: type = found.entry.load()
    check_api_version(plugin, owner)
    _record(kind, name)
    return plugin


def load_plugin_file(path: Path, kind: str = "algorithms") -> type:
    """Import a Python file and return its one plugin class. It may import files of its folder.

    That is the class with the method of its kind, one of `METHODS`, or else with hook methods.
    Raise `BadInput` if the file cannot be imported, or holds no such class or several.
    """
    if not path.is_file():
        raise BadInput("no such file", where=str(path))
    module = _import_file(path)
    candidates = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and (hasattr(value, METHODS[kind]) if kind in METHODS else hook_methods(value))
    ]
    # A base class of another candidate is not the plugin.
    leaves = [c for c in candidates if not any(issubclass(d, c) and d is not c for d in candidates)]
    if len(leaves) != 1:
        names = ", ".join(c.__name__ for c in leaves) or "none"
        raise BadInput(
            "a plugin file holds exactly one class with "
            f"{f'a method `{METHODS[kind]}`' if kind in METHODS else '@hookimpl methods'}; "
            f"found {names}",
            where=str(path),
        )
    check_api_version(leaves[0], str(path))
    _record(kind, str(path))
    return leaves[0]


def _import_file(path: Path) -> ModuleType:
    """Import a Python file, once for as long as it and what it imports beside it stay the same."""
    files = plain_files(path)
    sources, key = hash_files(files), path.absolute()
    if key in _modules and _modules[key][0] == sources:
        module = _modules[key][1]
        # Type hints are looked up there, and another file may have the same name.
        sys.modules[module.__name__] = module
        return module
    _owners.update({str(file.absolute()): str(path) for file in files.values()})
    folder = str(key.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # after everything installed, which it must not replace
    if key in _modules:  # it has changed, and what it imports may have
        for sibling in files:
            if not sibling.startswith(FAMILY):
                sys.modules.pop(sibling, None)
    name = f"alignzoo_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, key)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because `@dataclass` looks its module up in `sys.modules`.
    sys.modules[name] = module
    with _importing(where=str(path)):
        spec.loader.exec_module(module)
    _refuse_strangers(path, files)
    _modules[key] = sources, module
    return module


def _refuse_strangers(path: Path, files: dict[str, Path]) -> None:
    """Raise `BadInput` if a file got another module than the one of that name in its folder."""
    for name, file in files.items():
        loaded = getattr(sys.modules.get(name), "__file__", None)
        is_sibling = file.parent == path.parent and file != path
        if is_sibling and loaded is not None and Path(loaded).absolute() != file.absolute():
            raise BadInput(
                f"it imports {name!r}, and got {loaded} instead of {file}",
                where=str(path),
                hint=f"give {file.name} a name of its own",
            )


def load_function(path: str) -> Callable[..., Any]:
    """Import the function that `module.function` names, also from the current folder.

    Raise `BadInput` if there is none or its module cannot be imported.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise BadInput(f"{path!r} does not name a function", hint="write python:module.function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    _own_package(module_name, module_name)
    with _importing(where=f"module {module_name}"):
        module = importlib.import_module(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise BadInput(f"there is no function {name!r}", where=f"module {module_name}")
    _record("rewards", FUNCTION + path)
    return function


def plugin_source(kind: str, name: str) -> tuple[str, str, Path | None]:
    """Return `(package, version, path)` of a plugin; `path` is the file that defines it."""
    if name.endswith(".py"):
        return Path(name).stem, "file", Path(name)
    if name.startswith(FUNCTION):
        module = name.removeprefix(FUNCTION).rpartition(".")[0]
        return module.partition(".")[0], "file", locate_module(module)
    found = find_plugin(kind, name)
    return found.package, found.version, found.source


def hash_plugin(kind: str, name: str) -> str | None:
    """Return the SHA-256 of the files that a plugin is made of, None if it has no source."""
    if name.endswith(".py"):
        return hash_files(plain_files(Path(name)))
    if name.startswith(FUNCTION):
        return hash_files(package_files(name.removeprefix(FUNCTION).rpartition(".")[0]))
    return hash_files(package_files(find_plugin(kind, name).entry.module))


def _record(kind: str, name: str) -> None:
    """Record a plugin in the innermost block of `recording`."""
    if _recordings and (kind, name) not in _recordings[-1]:
        package, version, _ = plugin_source(kind, name)
        sha256 = hash_plugin(kind, name)
        loaded = Loaded(kind, name, package, version, sha256, checked_version(sha256))
        _recordings[-1][kind, name] = loaded


def _own_package(module: str, package: str) -> None:
    """Remember whose the files of a module's top-level package are."""
    top = locate_module(module.partition(".")[0]) or locate_module(module)
    if top is not None:
        is_folder = top.stem == "__init__" or "." in module
        _owners[f"{top.parent}{os.sep}" if is_folder else str(top)] = package


def owner_of(file: str) -> str | None:
    """Return the package, or the plain file, whose plugin a source file belongs to, or None."""
    for own, owner in _owners.items():
        if file == own or (own.endswith(os.sep) and file.startswith(own)):
            return owner
    return None


def find_origin(error: BaseException) -> str | None:
    """Return the place in a third-party plugin that an error came from: owner, file and line.

    None if it passed through none.
    """
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = owner_of(frame.f_code.co_filename)
        if owner is not None and owner != OWN:
            place = _place(owner, frame.f_code.co_filename, line)
    return place


def _place(owner: str, file: str, line: int | None) -> str:
    where = file if line is None else f"{file}, line {line}"
    return where if owner.endswith(".py") else f"package {owner}, {where}"


@contextmanager
def _importing(
    owner: str = "", where: str | None = None, hint: str | None = None
) -> Iterator[None]:
    """Raise `BadInput` for anything that is raised while a plugin is imported, even `SystemExit`.

    It names the line of the plugin's own source, or else `where`.
    """
    try:
        yield
    except BaseException as error:
        if is_interruption(error):
            raise
        place = find_origin(error) or where
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}, line {error.lineno}"
        raise BadInput(
            f"{owner}cannot be imported: {one_line(error)}", where=place, hint=hint
        ) from error

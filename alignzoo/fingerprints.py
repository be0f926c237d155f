"""Hashes of source files: of the core, and of the plugins of a run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def hash_sources(path: Path | None) -> str | None:
    """Return the SHA-256 of a Python file, or of all Python files below a folder; None if the path
    does not exist."""
    if path is None or not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def core_hash() -> str | None:
    """Return the SHA-256 of the core: the fingerprint `code` of every `run.json`."""
    return hash_sources(Path(__file__).parent)


def hash_plugins(recipe: Mapping[str, Any], plugins: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files that a run takes code from, by the name of what they hold.

    They are the files of its plugins, without alignzoo's own, and those that its recipe names.
    """
    files: dict[str, Path] = {}
    own = Path(__file__).parent
    for name, plugin in plugins.items():
        file = getattr(sys.modules.get(type(plugin).__module__), "__file__", None)
        if file is not None and own not in Path(file).parents:
            files[name] = Path(file)
    for text in texts_in(recipe):
        name = text.partition(",")[0]
        if name.endswith(".py"):
            files[name] = Path(name)
        elif name.startswith("python:"):
            file = getattr(
                sys.modules.get(name[len("python:") :].rpartition(".")[0]), "__file__", None
            )
            files |= {name: Path(file)} if file is not None else {}
    hashes = {name: hash_sources(path) for name, path in files.items()}
    return {name: digest for name, digest in hashes.items() if digest is not None}


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value of mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(one)

"""Hashes of source files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path


def hash_sources(path: Path | None) -> str | None:
    """Return the SHA-256 of a Python file, or of all Python files below a folder; None if the path
    does not exist."""
    if path is None or not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def hash_files(files: Mapping[str, Path]) -> str | None:
    """Return the SHA-256 of files by module, None if there are none."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest() if files else None


def core_hash() -> str | None:
    """Return the SHA-256 of the core: the fingerprint `code` of every `run.json`."""
    return hash_sources(Path(__file__).parent)

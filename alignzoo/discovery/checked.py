"""Which sources of plugins have passed the laws of `alignzoo check`, kept in the user's cache."""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo.files import cache_home, write_text


def _path(sha256: str) -> Path:
    return cache_home() / "checked" / f"{sha256}.json"


def record_check(sha256: str, name: str, version: int) -> None:
    """Remember that a plugin with this hash of its sources has passed a version of the laws."""
    path = _path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"name": name, "version": version}) + "\n")


def checked_version(sha256: str | None) -> int | None:
    """Return the version of the laws that a plugin has passed; None if it has passed none."""
    if sha256 is None:
        return None
    try:
        found = json.loads(_path(sha256).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None

"""Files: writes that survive a crash, JSON lines, and names of paths.

A write leaves the old file or the new one, never half of either.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from alignzoo.errors import BadInput, one_line

MANIFEST = "manifest.json"  # the SHA-256 of other files in its folder
DIGEST = "sha256"  # the key of a row's digest

# --- whole writes


def write_text(path: Path, text: str) -> None:
    """Replace a file: write beside it, flush to disk, then rename over it."""
    beside, data = path.with_name(temporary_name(path.name)), text.encode()
    with named(path, len(data)), beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextmanager
def named(path: Path, size: int | None) -> Iterator[None]:
    """Give an error of the system the name of the file that the block writes, and its bytes.

    safetensors raises errors of its own, with the system's number in their text.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        vars(error)["needed"] = size
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        named_error = OSError(number, os.strerror(number), str(path))
        vars(named_error)["needed"] = size
        raise named_error from error


def sync_file(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def temporary_name(name: str) -> str:
    """Return the name under which a file or folder is written before it is renamed."""
    return f".{name}.tmp"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file that several processes may write: the last one wins, whole."""
    prefix = f".{path.name}.{socket.gethostname()}-"
    delete_leftovers(path.parent, prefix)
    with (
        named(path, len(data)),
        NamedTemporaryFile(dir=path.parent, prefix=f"{prefix}{os.getpid()}-", delete=False) as file,
    ):
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def delete_leftovers(folder: Path, prefix: str) -> None:
    """Delete the files PREFIX + PID-... in a folder that killed processes left."""
    for path in list(folder.iterdir()):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if path.name.startswith(prefix) and pid.isdecimal() and not is_alive(int(pid)):
            path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Return whether this machine has a process of that id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def write_json(path: Path, value: Any, *, allow_nan: bool = False) -> None:
    """Replace a file by a value as indented JSON; raise `ValueError` for NaN unless allowed."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


@contextmanager
def whole_folder(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a folder to write into; it appears at `path` only if the block ends without error.

    `size` is about how many bytes it will have, if known, for the message if the disk is full.
    """
    beside = path.with_name(temporary_name(path.name))
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with named(path, size):
            yield beside
        for file in beside.rglob("*"):
            if file.is_file():
                sync_file(file)
        # A folder cannot be renamed over another: move the old one aside first.
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(beside, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


# --- checksums


def write_manifest(folder: Path, paths: Iterable[Path]) -> None:
    """Write the SHA-256 of files in a folder to its `manifest.json`."""
    files = sorted(path for path in paths if path.is_file())
    write_json(
        folder / MANIFEST, {str(path.relative_to(folder)): hash_file(path) for path in files}
    )


def find_change(folder: Path, needed: Set[str] = frozenset()) -> str | None:
    """Return what is wrong with the files of a manifest; None if they are as they were written.

    `needed` are names that the manifest must have.
    """
    try:
        if not (folder / MANIFEST).is_file():  # nothing, or a pipe, which could block
            return f"{MANIFEST} is missing"
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            if not (folder / name).is_file():
                return f"{Path(name).name} is missing"
            if hash_file(folder / name) != expected:
                return f"{name} is damaged"
        if not needed <= hashes.keys():
            return f"{MANIFEST} is damaged"
    except OSError as error:
        return one_line(error)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    return None


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- JSON lines


def json_lines(rows: Iterable[Any], **options: Any) -> str:
    """Return the rows as JSON, one a line; `options` go to `json.dumps`."""
    options = {"ensure_ascii": False, **options}
    return "".join(json.dumps(row, **options) + "\n" for row in rows)


def without_non_finite(value: Any, name: str = "") -> tuple[Any, list[str]]:
    """Return a value of JSON with None for every number that is not finite, and their names.

    The name of a number is its path in the value, `measures/length`.
    """
    if isinstance(value, float):
        return (value, []) if math.isfinite(value) else (None, [name])
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list | tuple):
        pairs = list(enumerate(value))
    else:
        return value, []
    prefix = f"{name}/" if name else ""
    found = {key: without_non_finite(one, f"{prefix}{key}") for key, one in pairs}
    kept = {key: one for key, (one, _) in found.items()}
    names = [path for _, inner in found.values() for path in inner]
    return (kept if isinstance(value, Mapping) else list(kept.values())), names


def append_lines(path: Path, rows: Iterable[Any], *, sync: bool = False, **options: Any) -> None:
    """Append rows as JSON lines in one unbuffered write, so that processes can share a file.

    With `sync` they are on the disk on return. `options` go to `json.dumps`.
    """
    data = memoryview(json_lines(rows, **options).encode())
    with named(path, len(data)), path.open("ab", buffering=0) as file:
        while data:  # a write of many megabytes may be partial
            data = data[file.write(data) :]
        if sync:
            os.fsync(file.fileno())


def with_digest(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of JSON with a digest of its contents, by which damage is noticed."""
    return {**row, DIGEST: digest(json.dumps(row))}


def without_digest(row: Any) -> dict[str, Any] | None:
    """Return a row that `with_digest` made, without its digest; None if it is damaged."""
    if not isinstance(row, dict) or DIGEST not in row:
        return None
    contents = {name: value for name, value in row.items() if name != DIGEST}
    return contents if digest(json.dumps(contents)) == row[DIGEST] else None


def digest(text: str) -> str:
    """Return 64 bits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_lines(path: Path, *, skip_damaged: bool = False) -> list[Any]:
    """Return the values of the complete JSON lines of a file, or nothing if there is no file.

    A crash may have cut off the last line. Reading ends at the first damaged one, unless
    `skip_damaged`: then the others are read, as for a file shared by several processes.
    """
    if not path.is_file():
        return []
    found = []
    # Only \n ends a line: a JSON text may hold U+2028, at which `splitlines` would cut it.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:
            if not skip_damaged:
                break
    return found


def require_regular(path: Path) -> None:
    """Raise `BadInput` for a pipe, a socket or a device: reading it might never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadInput(
            "not a regular file", where=str(path), hint="write what it gives to a file first"
        )


# --- names and paths


def looks_like_path(name: str, suffixes: tuple[str, ...] = ()) -> bool:
    """Return True if a name means a path and not a repository `owner/name` on the Hub.

    It does if it is spelled like a path, ends in one of the `suffixes`, or is `a/b` and there is
    a folder `a`. Such a name is never looked up on the Hub, so a mistyped path fails at once.
    """
    return (
        name.startswith((".", "/", "~"))
        or name.endswith("/")
        or "\\" in name
        or name.count("/") > 1
        or name.lower().endswith(suffixes)
        or ("/" in name and os.path.isdir(os.path.dirname(name)))
    )


def nearest_path(path: Path, *, folders: bool = False) -> str:
    """Return a hint for a path that does not exist: a similar name there, or what there is.

    With `folders`, only folders are suggested.
    """
    parent = path.parent
    while not os.path.isdir(parent):  # Path.is_dir raises for a name that is too long
        parent = parent.parent
    missing = path.parts[len(parent.parts)]
    folders = folders or missing != path.name
    names = sorted(
        p.name for p in parent.iterdir() if p.name[0] != "." and (p.is_dir() or not folders)
    )
    close = difflib.get_close_matches(missing, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {str(parent / close[0])!r}?"
    noun = "folders" if folders else "files"
    return f"{parent} holds: {', '.join(names[:10]) or f'no {noun}'}"


def unused_name(name: str, is_used: Callable[[str], bool]) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, ... that is not used."""
    unused, n = name, 1
    while is_used(unused):
        n += 1
        unused = f"{name}-{n}"
    return unused


def cache_home() -> Path:
    """Return `$ALIGNZOO_CACHE`, or else the folder `alignzoo` in the user's cache."""
    own = os.environ.get("ALIGNZOO_CACHE")
    if own:
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "alignzoo"

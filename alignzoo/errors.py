"""The two errors shown to users without a traceback, and helpers for the words of messages.

`BadInput` is for the user to fix: it says what is wrong, where, and what to do, and ends the
command with exit code 2. `RunFailed` is trouble while running: exit code 1.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONGEST = 200  # characters of a first line that are shown


class AlignzooError(Exception):
    """Base of the errors that are shown as one message, without a traceback."""

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, hint: str | None = None):
        self.problem, self.where, self.hint = problem, where, hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """`where: problem` on one line, and the hint on the next: no more than a screen."""
        text = cut_middle(self.problem, 600)
        if self.where:
            text = f"{cut_middle(self.where, 600)}: {text}"
        return f"{text}\n  {cut_middle(self.hint, 1200)}" if self.hint else text


class BadInput(AlignzooError):
    """A flag, a file or an argument is wrong; nothing has been changed on disk."""

    exit_code = 2


class NotAvailable(BadInput):
    """What a plugin needs is not there: a server, a GPU, a package or a data set.

    `alignzoo check` then skips the plugin, and gives the message as the reason.
    """


class RunFailed(AlignzooError):
    """The run failed for a reason beyond its input (a NaN loss, a plugin that raises)."""

    exit_code = 1


def cut_middle(text: str, most: int) -> str:
    """Return a text of at most `most` characters, the middle of a longer one left out."""
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the closest known one, if any, and all of them."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known) or "none"
    return f"did you mean {close[0]!r}? Known: {listing}." if close else f"Known: {listing}."


def describe_os_error(error: OSError) -> dict[str, Any]:
    """Return the arguments of an `AlignzooError` for a file that cannot be read or written."""
    path = Path(os.fsdecode(error.filename))
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next((one for one in (path, *path.parents) if one.is_dir()), Path())
        hint = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
        needed = getattr(error, "needed", None)  # bytes, as `alignzoo.files` knows them
        if needed is not None:
            hint = f"{needed / 1e6:,.1f} MB are needed, {hint}"
    return {"problem": error.strerror or one_line(error), "where": str(path), "hint": hint}


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, shortened; its type if it has none."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def one_line(error: BaseException) -> str:
    """Return `ValueError: first line`, or the type alone if there is no message."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def count(n: int, noun: str, plural: str = "") -> str:
    """Return `1 row` or `2,312 rows`; `plural` is for nouns that take more than an `s`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name is deprecated, in the file that used it."""
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=stacklevel)

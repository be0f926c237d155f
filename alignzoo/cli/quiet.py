"""A quiet terminal: while libraries load and run, what they print goes to a log file.

Redirected are the file descriptors themselves, so that warnings, progress bars and the messages
of C++ code and of child processes are caught alike. Our own words go to duplicates of the
descriptors that were there before.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from alignzoo.errors import AlignzooError, RunFailed, one_line

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Log:
    """The file that fd 1 and 2 go to, and `out` and `err`: the terminal as it was before."""

    def __init__(self, path: Path, out: TextIO, err: TextIO):
        self.path, self.out, self.err = path, out, err

    def move_to(self, path: Path) -> None:
        """Go on in another file, after what has been written so far."""
        if path == self.path:
            return
        flush()
        with path.open("ab") as file:
            file.write(self.path.read_bytes())
            file.flush()
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        self.path.unlink()
        self.path = path


@contextmanager
def quiet(path: Path | None = None) -> Iterator[Log]:
    """Send what libraries print to `path`, or to a temporary file that goes away at the end.

    An unforeseen exception leaves its traceback in the log, which is then kept, and comes out as
    `RunFailed` that says where.
    """
    temporary = path is None
    if path is None:
        handle, name = tempfile.mkstemp(prefix="alignzoo-", suffix=".log")
        os.close(handle)
        path = Path(name)
    first, streams = path, (sys.stdout, sys.stderr)
    flush()
    with path.open("ab") as file:
        saved = os.dup(1), os.dup(2)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        log = Log(path, *(_open(fd, encoding) for fd in saved))
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Never closed: handlers that libraries make meanwhile hold on to them, and they write to
    # whatever the descriptors are by then.
    sys.stdout, sys.stderr = (_open(fd, "utf-8", closefd=False) for fd in (1, 2))
    handler = _start_logging()
    try:
        yield log
    except AlignzooError:
        raise
    except Exception as error:
        traceback.print_exc()
        temporary = False
        raise RunFailed(one_line(error), hint=f"the traceback is in {log.path}") from error
    finally:
        _stop_logging(handler)
        flush()
        sys.stdout, sys.stderr = streams
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for stream in (log.out, log.err):
            with suppress(OSError):  # whoever read our words may be gone
                stream.close()
        if temporary and log.path == first:
            first.unlink(missing_ok=True)


def flush() -> None:
    """Empty the buffers of Python and of C, which would else come out at the wrong place."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def _open(fd: int, encoding: str, *, closefd: bool = True) -> TextIO:
    return open(fd, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=closefd)


def _start_logging() -> tuple[logging.Handler, int]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler, before


def _stop_logging(started: tuple[logging.Handler, int]) -> None:
    handler, level = started
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(level)

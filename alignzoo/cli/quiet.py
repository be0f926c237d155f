"""Redirect what libraries print to a log file.

The file descriptors themselves are redirected, which also catches progress bars and the output of
C++ code and child processes. Our own output goes to duplicates of the original descriptors.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from alignzoo.errors import AlignzooError, RunFailed, describe_os_error, one_line

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Output(io.TextIOWrapper):
    """A stream to the user. A run outlives its reader: a closed pipe, terminal or a full disk.

    What cannot be written goes to `sys.stdout` if that is another stream, as the log is.
    """

    def __init__(self, fd: int, encoding: str = "utf-8", *, closefd: bool = True):
        raw = open(fd, "wb", closefd=closefd)  # noqa: SIM115
        super().__init__(raw, encoding, errors="backslashreplace", line_buffering=True)
        self.is_lost = False

    def write(self, text: str) -> int:
        """Write text, or do without."""
        if not self.is_lost:
            try:
                return super().write(text)
            except OSError:
                self.is_lost = True
        if sys.stdout is not self and not isinstance(sys.stdout, Output):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written, or do without."""
        if not self.is_lost:
            try:
                super().flush()
            except OSError:
                self.is_lost = True

    def close(self) -> None:
        """Close the stream, with or without what could not be written."""
        with suppress(OSError):
            super().close()


class Log:
    """The file that descriptors 1 and 2 write to; `out` and `err` are the original streams."""

    def __init__(self, path: Path, out: TextIO, err: TextIO):
        self.path, self.out, self.err = path, out, err

    def move_to(self, path: Path) -> None:
        """Continue in another file, and move what has been written so far there."""
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
    """Redirect output to `path`, or to a temporary file that is deleted at the end.

    Raise `RunFailed` for an unexpected exception. Its traceback is in the log, which is then kept,
    and the message gives the path.
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
        log = Log(path, *(Output(fd, encoding) for fd in saved))
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Never closed: logging handlers that libraries create meanwhile keep a reference to them.
    sys.stdout, sys.stderr = (_open(fd) for fd in (1, 2))
    handler = _start_logging()
    try:
        yield log
    except AlignzooError:
        raise
    except (Exception, SystemExit) as error:
        with suppress(OSError):  # the disk may be full
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is not None:
            raise RunFailed(**describe_os_error(error)) from error
        temporary = False
        what = one_line(error)
        if isinstance(error, SystemExit):
            what = f"a plugin or a library tried to end the program: SystemExit({error.code!r})"
        raise RunFailed(what, hint=f"the traceback is in {log.path}") from error
    finally:
        _stop_logging(handler)
        flush()
        sys.stdout, sys.stderr = streams
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for stream in (log.out, log.err):
            stream.close()
        if temporary and log.path == first:
            first.unlink(missing_ok=True)


def flush() -> None:
    """Flush the buffers of Python and C, which would otherwise end up in the wrong file."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def _open(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


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

"""Redirect what libraries print to a log file.

The file descriptors themselves are redirected, which also catches progress bars and the output of
C++ code and child processes. Our own output goes to duplicates of the original descriptors.

What a plugin prints is shown as well as logged, and its `breakpoint()` ends the redirection.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from alignzoo.discovery import OldPlugin, find_origin, owner_of
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
    """The file that descriptors 1 and 2 write to; `out` and `err` are the original streams.

    `show` prints a line of a plugin, and `pause` stops a progress bar; a `Terminal` sets both.
    """

    def __init__(self, path: Path, out: TextIO, err: TextIO):
        self.path, self.out, self.err = path, out, err
        self.show: Callable[[str], None] = self.print
        self.pause: Callable[[], None] = lambda: None
        self.is_ended = False

    def print(self, text: str) -> None:
        """Print a line on stderr, in the first of several processes."""
        from alignzoo.cli.render import clean

        if os.environ.get("RANK", "0") == "0":
            self.err.write(f"{clean(text)}\n")

    def end(self) -> None:
        """Give the original streams back before the block ends."""
        flush()
        self.is_ended = True
        os.dup2(self.out.fileno(), 1)
        os.dup2(self.err.fileno(), 2)
        sys.stdout, sys.stderr = self.out, self.err

    def debug(self, *args: Any, **keywords: Any) -> None:
        """Start a debugger on the terminal, as `breakpoint()` does.

        The redirection ends here: a debugger that is chosen by PYTHONBREAKPOINT may use any stream.
        Without a terminal to type in, say so and go on.
        """
        import pdb

        chosen = os.environ.get("PYTHONBREAKPOINT", "")
        frame = sys._getframe(1)
        if chosen in ("", "pdb.set_trace") and (sys.stdin is None or not sys.stdin.isatty()):
            where = f"{frame.f_code.co_filename}, line {frame.f_lineno}"
            self.show(f"{where}: breakpoint() is passed over, because the input is no terminal")
            return
        if chosen != "0":
            self.pause()
            self.end()
        if chosen in ("", "pdb.set_trace"):
            # Ctrl-C stays what it is in a run.
            pdb.Pdb(nosigint=True).set_trace(frame)
        else:
            sys.__breakpointhook__(*args, **keywords)

    def move_to(self, path: Path) -> None:
        """Continue in another file, and move what has been written so far there."""
        if path == self.path:
            return
        flush()
        with path.open("ab") as file:
            file.write(self.path.read_bytes())
            file.flush()
            if not self.is_ended:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
        self.path.unlink()
        self.path = path


class Printed(io.TextIOWrapper):
    """A stream that writes to the log, and shows what plugins print."""

    def __init__(self, log: Log, fd: int):
        raw = open(fd, "wb", closefd=False)  # noqa: SIM115
        super().__init__(raw, "utf-8", errors="backslashreplace", line_buffering=True)
        self.log, self.begun = log, ""

    def write(self, text: str) -> int:
        """Write text to the log; if a plugin prints it, show the lines that it completes."""
        if is_of_plugin(sys._getframe(1)):
            *lines, self.begun = (self.begun + text).split("\n")
            for line in lines:
                self.log.show(line)
        return super().write(text)

    def flush(self) -> None:
        """Flush the log, and show a line that has only begun, such as a question."""
        if self.begun:
            line, self.begun = self.begun, ""
            self.log.show(line)
        super().flush()


def is_of_plugin(frame: FrameType | None) -> bool:
    """Return True if a plugin calls from here, by itself or through modules that print."""
    while frame is not None:
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top not in sys.stdlib_module_names and top != "rich":
            return owner_of(frame.f_code.co_filename) is not None
        frame = frame.f_back
    return False


@contextmanager
def quiet(path: Path | None = None) -> Iterator[Log]:
    """Redirect output to `path`, or to a temporary file that is deleted at the end.

    Raise `RunFailed` for an unexpected exception, `SystemExit` and the like included. It names the
    line of the plugin that it came from. Its traceback is in the log, which is then kept, and the
    message gives the path.
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
    sys.stdout, sys.stderr = (Printed(log, fd) for fd in (1, 2))
    hook, sys.breakpointhook = sys.breakpointhook, log.debug
    handler = _start_logging(log)
    try:
        yield log
    except AlignzooError as error:
        if isinstance(error, RunFailed) and error.__cause__ is not None:
            with suppress(OSError):  # the disk may be full
                traceback.print_exc()
            if error.hint is None:
                error.hint, temporary = f"the traceback is in {log.path}", False
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise
        with suppress(OSError):  # the disk may be full
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is not None:
            raise RunFailed(**describe_os_error(error)) from error
        temporary = False
        what = one_line(error)
        if isinstance(error, SystemExit):
            what = f"a plugin or a library tried to end the program: SystemExit({error.code!r})"
        raise RunFailed(
            what, where=find_origin(error), hint=f"the traceback is in {log.path}"
        ) from error
    finally:
        sys.breakpointhook = hook
        _stop_logging(handler)
        flush()
        log.show = lambda text: None  # its streams are closed
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


def _start_logging(log: Log) -> tuple[logging.Handler, int]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logged = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, OldPlugin):
            log.show(str(message))
        logged(message, category, *where, **more)

    warnings.showwarning = show
    return handler, before


def _stop_logging(started: tuple[logging.Handler, int]) -> None:
    handler, level = started
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(level)

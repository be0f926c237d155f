"""Run untrusted Python programs in a sandbox; `jail` isolates them."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from alignzoo.errors import BadInput

JAIL = Path(__file__).with_name("jail.py")
RUNNER = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
MIB = 1 << 20
JAILS = ("bubblewrap", "namespaces")  # the better-kept one first


@dataclass(frozen=True)
class Limits:
    """Limits of one program."""

    seconds: float = 5.0  # by the wall clock
    memory: int = 512  # MiB, of all processes together
    files: int = 4  # MiB, of each file and of the output
    processes: int = 16  # and threads


class Sandbox:
    """Runs programs under `limits`, each in a jail of its own, and is safe to use from threads.

    `kind` is one of `JAILS`, the first that works on this machine by default. Raise `BadInput` if
    none does: a program of a stranger is not run without one.
    """

    def __init__(self, limits: Limits, kind: str | None = None):
        self.limits = limits
        working = [kind] if kind else [kind for kind in JAILS if jail_failure(kind) is None]
        if not working:
            raise BadInput(
                f"programs cannot be isolated on this machine: {unavailable_reason()}",
                hint="install bubblewrap 0.8 or newer (bwrap), or allow user namespaces; if this "
                "is a container, allow them in it",
            )
        self.kind = working[0]

    def count_passed(self, program: str, tests: Sequence[str]) -> int:
        """Run the program, then the tests; return how many of these raise nothing."""
        deadline, secret = time.monotonic() + self.limits.seconds, secrets.token_hex(16)
        with self._jailed(True, subprocess.PIPE, subprocess.PIPE) as process:
            replies = _LineReader(process, deadline, self.limits.files * MIB)
            # The program must not know the secret, so the tests are sent after it has run.
            if not replies.send(_add_length(program)) or replies.next() != "ready":
                return 0
            replies.send(json.dumps({"tests": list(tests), "secret": secret}).encode() + b"\n")
            expected = {f"{secret} {number}" for number in range(len(tests))}
            passed: set[str] = set()
            while (line := replies.next()) is not None:
                passed |= {line} & expected
            return len(passed)

    def run(self, program: str, stdin: str) -> str | None:
        """Return what the program prints, or None if it fails or takes too long."""
        with TemporaryFile() as source, TemporaryFile() as sink:
            source.write(_add_length(program) + stdin.encode())
            source.flush()
            source.seek(0)
            with self._jailed(False, source, sink) as process:
                try:
                    status = process.wait(self.limits.seconds)
                except subprocess.TimeoutExpired:
                    return None
            sink.seek(0)
            return sink.read().decode(errors="replace") if status == 0 else None

    @contextmanager
    def _jailed(
        self, tests: bool, source: IO[bytes] | int, sink: IO[bytes] | int
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start the runner in a jail, with an empty folder as home; clean up at the end."""
        with TemporaryDirectory(prefix="alignzoo-", ignore_cleanup_errors=True) as folder:
            # The user nobody, which a jail started by root becomes, must be able to enter.
            os.chmod(folder, 0o711)
            settings = _jail_settings(self.limits, folder, self.kind, tests)
            process = _start_jail(settings, RUNNER, source, sink)
            try:
                yield process
            finally:
                _kill(process)


def _jail_settings(limits: Limits, folder: str, kind: str, tests: bool) -> dict[str, Any]:
    """Return the settings of the jail and the runner."""
    return {
        "kind": kind,
        "bubblewrap": shutil.which("bwrap"),
        "folder": os.path.realpath(folder),
        "tests": tests,
        "memory": limits.memory * MIB,
        "seconds": int(limits.seconds) + 1,
        "file_size": limits.files * MIB,
        "processes": limits.processes,
    }


@cache
def jail_failure(kind: str) -> str | None:
    """Return why a kind of jail does not work on this machine, or None if it does."""
    if sys.platform != "linux":
        return "this is not Linux"
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    with TemporaryDirectory(prefix="alignzoo-") as folder:
        os.chmod(folder, 0o711)
        settings = _jail_settings(Limits(), folder, kind, tests=False)
        try:
            process = _start_jail(
                settings, "pass", subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE
            )
            errors = process.communicate(timeout=30)[1].decode(errors="replace").strip()
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        return None if process.returncode == 0 else (errors.splitlines() or ["it failed"])[-1]


def unavailable_reason() -> str | None:
    """Return why there is no jail on this machine, or None if there is one."""
    reasons = [jail_failure(kind) for kind in JAILS]
    if None in reasons:
        return None
    return "; ".join(f"{kind}: {reason}" for kind, reason in zip(JAILS, reasons, strict=True))


def _start_jail(
    settings: dict[str, Any],
    program: str,
    source: IO[bytes] | int,
    sink: IO[bytes] | int,
    errors: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    folder = settings["folder"]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(JAIL), json.dumps(settings), program],
        stdin=source,
        stdout=sink,
        stderr=errors,
        cwd=folder,
        # Nothing of this process's environment, and the same order of sets each time.
        env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group; killing a namespace's first process kills all of them."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # data that was not read
                pipe.close()


def _add_length(program: str) -> bytes:
    """Return the program after a line with its length in bytes, as the runner reads it."""
    code = program.encode("utf-8", errors="replace")
    return f"{len(code)}\n".encode() + code


class _LineReader:
    """Talks to a process line by line, until a deadline and up to `max_bytes` of output."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, max_bytes: int):
        assert process.stdin is not None and process.stdout is not None
        self.source, self.sink = process.stdout.fileno(), process.stdin.fileno()
        self.deadline, self.left, self.buffer = deadline, max_bytes, b""
        os.set_blocking(self.sink, False)

    def send(self, data: bytes) -> bool:
        """Write data; return True if the process read all of it in time."""
        while data:
            if not self.ready(self.sink, select.POLLOUT):
                return False
            try:
                data = data[os.write(self.sink, data) :]
            except BlockingIOError:
                continue
            except OSError:  # the process has ended
                return False
        return True

    def next(self) -> str | None:
        """Return the next line, or None if there is none or no time is left."""
        while b"\n" not in self.buffer:
            if self.left <= 0 or not self.ready(self.source, select.POLLIN):
                return None
            more = os.read(self.source, min(self.left, 1 << 16))
            if not more:
                return None
            self.buffer, self.left = self.buffer + more, self.left - len(more)
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace")

    def ready(self, stream: int, event: int) -> bool:
        """Wait until the stream can be read or written; return False at the deadline."""
        poll = select.poll()
        poll.register(stream, event)
        return bool(poll.poll(max(self.deadline - time.monotonic(), 0) * 1000))

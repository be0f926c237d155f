"""Programs that nobody has read, run apart from everything: see `jail` for what holds them."""

from __future__ import annotations

import json
import os
import secrets
import select
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

JAIL = Path(__file__).with_name("jail.py")
RUNNER = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Of one program: seconds by the wall clock, MiB of memory in each of its processes, MiB of
    files and output, processes and threads."""

    seconds: float = 5.0
    memory: int = 512
    files: int = 4
    processes: int = 16


class Sandbox:
    """Runs programs under `limits`, each in a jail of its own, in namespaces of its own where the
    kernel has them; several threads may ask at once."""

    def __init__(self, limits: Limits, namespaces: bool | None = None):
        self.limits = limits
        self.namespaces = why_not() is None if namespaces is None else namespaces

    def passed(self, program: str, tests: Sequence[str]) -> int:
        """How many of the tests, Python statements that raise nothing, pass after the program."""
        deadline, secret = time.monotonic() + self.limits.seconds, secrets.token_hex(16)
        with self.jailed(True, subprocess.PIPE, subprocess.PIPE) as process:
            answers = _Lines(process, deadline, self.limits.files * MIB)
            # The tests come when the program has run, so that it cannot know what is to be said.
            if not answers.tell(_framed(program)) or answers.next() != "ready":
                return 0
            answers.tell(json.dumps({"tests": list(tests), "secret": secret}).encode() + b"\n")
            right = {f"{secret} {number}" for number in range(len(tests))}
            found: set[str] = set()
            while (line := answers.next()) is not None:
                found |= {line} & right
            return len(found)

    def output(self, program: str, given: str) -> str | None:
        """What it prints when it reads `given`; None where it fails or takes too long."""
        with TemporaryFile() as source, TemporaryFile() as sink:
            source.write(_framed(program) + given.encode())
            source.flush()
            source.seek(0)
            with self.jailed(False, source, sink) as process:
                try:
                    status = process.wait(self.limits.seconds)
                except subprocess.TimeoutExpired:
                    return None
            sink.seek(0)
            return sink.read().decode(errors="replace") if status == 0 else None

    @contextmanager
    def jailed(
        self, tests: bool, source: IO[bytes] | int, sink: IO[bytes] | int
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The runner in a jail, with an empty folder for home; all of it is gone in the end."""
        with TemporaryDirectory(prefix="alignzoo-", ignore_cleanup_errors=True) as folder:
            # Where the jail is nobody's, nobody must come in.
            os.chmod(folder, 0o711 if self.namespaces else 0o777)
            settings = settings_for(self.limits, folder, self.namespaces, tests)
            process = _jail(settings, RUNNER, source, sink)
            try:
                yield process
            finally:
                _end(process)


def settings_for(limits: Limits, folder: str, namespaces: bool, tests: bool) -> dict[str, Any]:
    """What the jail and the runner are told."""
    return {
        "folder": os.path.realpath(folder),
        "namespaces": namespaces,
        "tests": tests,
        "memory": limits.memory * MIB,
        "seconds": int(limits.seconds) + 1,
        "file_size": limits.files * MIB,
        "processes": limits.processes,
    }


@cache
def why_not(namespaces: bool = True) -> str | None:
    """Why a program cannot be shut in here, or without namespaces not even be limited; None if it
    can."""
    with TemporaryDirectory(prefix="alignzoo-") as folder:
        os.chmod(folder, 0o711)
        settings = settings_for(Limits(), folder, namespaces, tests=False)
        try:
            process = _jail(settings, "pass", subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE)
            said = process.communicate(timeout=30)[1].decode(errors="replace").strip()
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        return None if process.returncode == 0 else (said.splitlines() or ["it failed"])[-1]


def _jail(
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
        # Nothing of ours; and sets have the same order each time.
        env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and what is in its group; with the first process of a namespace all of it dies."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not read
                pipe.close()


def _framed(program: str) -> bytes:
    code = program.encode("utf-8", errors="replace")
    return f"{len(code)}\n".encode() + code


class _Lines:
    """What a process says, line by line, until a deadline and up to so many bytes."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, most: int):
        assert process.stdin is not None and process.stdout is not None
        self.source, self.sink = process.stdout.fileno(), process.stdin.fileno()
        self.deadline, self.left, self.said = deadline, most, b""
        os.set_blocking(self.sink, False)

    def tell(self, data: bytes) -> bool:
        """Whether it took all of it in time."""
        while data:
            if not self.ready(self.sink, select.POLLOUT):
                return False
            try:
                data = data[os.write(self.sink, data) :]
            except BlockingIOError:
                continue
            except OSError:  # it has ended
                return False
        return True

    def next(self) -> str | None:
        """The next line; None when there is no more, or no more time."""
        while b"\n" not in self.said:
            if self.left <= 0 or not self.ready(self.source, select.POLLIN):
                return None
            more = os.read(self.source, min(self.left, 1 << 16))
            if not more:
                return None
            self.said, self.left = self.said + more, self.left - len(more)
        line, _, self.said = self.said.partition(b"\n")
        return line.decode(errors="replace")

    def ready(self, stream: int, for_what: int) -> bool:
        poll = select.poll()
        poll.register(stream, for_what)
        return bool(poll.poll(max(self.deadline - time.monotonic(), 0) * 1000))

"""One trial: a command line with odd input, in this process, and what was wrong with the answer.

A campaign of trials is run by hand as well: `python tests/fuzz/trials.py recipes 0 5000` prints
each fault with the number that makes it again.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120  # seconds after which a trial counts as hanging: a thousand times the usual
MOST_CHARACTERS = 4000  # of a message: a screen
MOST_LINES = 30


@dataclass(frozen=True)
class Command:
    """The words after `alignzoo`, and what is typed while the command runs."""

    words: list[str]
    typed: str = ""


# Make the input of a trial in an empty folder, and return the command that reads it.
Generator = Callable[[random.Random, Path], Command]


class Hang(BaseException):
    """No command catches it, so a trial that hangs ends."""


@dataclass(frozen=True)
class Fault:
    """A trial that went wrong: its number makes it again."""

    kind: str
    number: int
    problem: str
    words: list[str]

    def __str__(self) -> str:
        shown = " ".join(repr(word)[:120] for word in self.words)
        return f"{self.kind} {self.number}: {self.problem}\n  alignzoo {shown}"


def run_trial(kind: str, generate: Generator, number: int) -> tuple[int, Fault | None]:
    """Return the exit code of a trial, and its fault if it has one."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder = root / "here"
    folder.mkdir()
    try:
        with chdir(folder):
            command = generate(random.Random(f"{kind} {number}"), folder)
            code, out, err = execute(command, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    problem = find_problem(code, out, err)
    return code, Fault(kind, number, problem, command.words) if problem else None


def execute(command: Command, root: Path) -> tuple[int, str, str]:
    """Return the exit code of a command, -1 if it hangs, and the texts it printed."""
    from alignzoo.cli import status

    paths = root / "out", root / "err"
    with streams(*paths, command.typed):
        try:
            with alarm():
                code = status(command.words)
        except Hang:
            code = -1
    out, err = (path.read_text(encoding="utf-8", errors="replace") for path in paths)
    for log in re.findall(r"the traceback is in (\S+)", err):
        if Path(log).is_file():
            err += "\n".join(Path(log).read_text(encoding="utf-8").splitlines()[-16:])
    return code, out, err


@contextmanager
def streams(out: Path, err: Path, typed: str) -> Iterator[None]:
    """Replace the three standard streams, down to the descriptors, as a shell does."""
    from alignzoo.cli.quiet import Output

    before = sys.stdin, sys.stdout, sys.stderr
    saved = {number: os.dup(number) for number in (1, 2)}
    try:
        for number, path in ((1, out), (2, err)):
            with path.open("wb") as file:
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = Output(1, closefd=False), Output(2, closefd=False)
        sys.stdin = io.StringIO(typed)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for number, descriptor in saved.items():
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def alarm() -> Iterator[None]:
    """Raise `Hang` in the block if it takes longer than any trial should."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    due, _ = signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if due:  # pytest has a timer for each test
            signal.setitimer(signal.ITIMER_REAL, max(due - (time.monotonic() - began), 1e-3))


def find_problem(code: int, out: str, err: str) -> str | None:
    """Return what is wrong with the answer to a command, or None."""
    if code == -1:
        return "it hangs"
    if code not in (0, 2):
        return f"exit code {code}: {err[-1600:]}"
    if "Traceback" in out + err:
        return f"a traceback: {err[-1600:]}"
    if code == 2 and not err.strip():
        return "no message"
    if code == 2 and "alignzoo: " not in err:
        return f"a message without its beginning: {err[-1600:]}"
    if len(err) > MOST_CHARACTERS or err.count("\n") > MOST_LINES:
        return f"a message of {len(err):,} characters: {err[:300]}"
    if any(ord(sign) < 32 and sign not in "\n\t\r" for sign in err):
        return f"control characters in the message: {err[-1600:]!r}"
    return None


def main(kind: str, first: int, trials: int) -> None:
    """Run a campaign, and print its faults and how many commands ended how."""
    from generators import GENERATORS

    codes: dict[int, int] = {}
    faults = 0
    for number in range(first, first + trials):
        code, fault = run_trial(kind, GENERATORS[kind], number)
        codes[code] = codes.get(code, 0) + 1
        if fault is not None:
            faults += 1
            print(fault, flush=True)
        if number % 100 == 99:
            print(f"{kind}: up to {number}, {faults} faults", flush=True)
    print(f"{kind}: {trials} trials, {faults} faults, exit codes {codes}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

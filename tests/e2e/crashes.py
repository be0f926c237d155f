"""Kill a run at one of its file operations, and compare what two runs left on disk."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.cli import status

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir"}
WRITES = os.O_WRONLY | os.O_RDWR
TIMES = {"seconds", "peak_memory_bytes", "started", "saved"}  # and what a cache saved
NAMES = {"name"}


def in_child(work: Callable[[], Any]) -> int:
    """Do work in a copy of this process, and return its exit code: -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_until(words: list[str], operation: int | None, counted: Path | None = None) -> int:
    """Run a command in a child that is killed before a file operation, and return its exit code.

    The number of operations goes to the file `counted`.
    """

    def work() -> int:
        done = 0

        def audit(event: str, args: tuple[Any, ...]) -> None:
            nonlocal done
            if event in CHANGES or (event == "open" and (args[2] or 0) & WRITES):
                done += 1
                if done == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        code = status(words)
        if counted is not None:
            counted.write_text(str(done))
        return code

    return in_child(work)


def resume(words: list[str]) -> None:
    """Finish a run that was killed, begun or not."""
    if in_child(lambda: status([*words, "--resume"])) != 0:
        code = in_child(lambda: status(words))
        assert code in (0, 2)  # 2: it was finished


def contents(folder: Path) -> dict[str, Any]:
    """Return all that a run left on disk but for its log, without times and its name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("run.json", "state.json"):
            found[name] = without_times(json.loads(path.read_text()))
        elif path.name == "manifest.json":
            found[name] = {
                k: v for k, v in json.loads(path.read_text()).items() if k[:5] != "state"
            }
        elif path.is_file() and path.name != "log.txt":
            found[name] = path.read_bytes()
            if path.suffix == ".jsonl":
                found[name] = [without_times(json.loads(x)) for x in path.read_text().splitlines()]
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES | NAMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of the files that differ between two runs."""
    ours, theirs = contents(one), contents(other)
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]

"""Record what a kill at each file operation of a run would leave on disk, and resume from there.

A killed process leaves the files as the system had them. So the folder is read before and after
each call of Python that can change a file, while the run goes on: one run gives all crash points,
and only resuming costs time. `kill_after` kills for real, to show that it leaves the same.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from alignzoo import discovery
from alignzoo.cli import status
from alignzoo.files import json_lines

ROOT = Path(__file__).parents[2]
# Functions written in C, by name: those of `os`, of files, and the one by which safetensors saves.
OPERATIONS = {
    "open", "write", "flush", "close", "__exit__", "fsync", "truncate", "ftruncate",
    "mkdir", "rename", "replace", "remove", "unlink", "rmdir", "link", "symlink",
    "serialize_file",
}  # fmt: skip
TIMES = {"seconds", "peak_memory_bytes", "started", "saved"}  # and what a cache saved
RUN = "it"  # the name of every run
DEAD = 2**22 + 1  # an id that Linux gives to no process

SHORT = ["--max-new-tokens", "6"]
STEPS = ["--steps", "3", "--batch-size", "2", "--checkpoint-every", "1", "--eval-every", "2"]
STEPS += ["--lora-rank", "1"]
TRAINING = [*STEPS, *SHORT]
SCORED = [*TRAINING, "--task", "sums"]
EVEN = ["--temperature", "2", "--reward", "regex,pattern=[02468].{0,2}$"]  # near the end
# Words of the command, and the task and view that its eight rows of data are from.
RUNS: dict[str, tuple[list[str], tuple[str, str] | None]] = {
    "best-of-n": ([*SHORT, "--task", "sums", "--n", "2"], None),
    "constitutional": (
        [*TRAINING, "--model", "zoo-critic", "--revisions", "1"],
        ("constitution", "prompts"),
    ),
    "dpo": ([*TRAINING, "--cache-reference"], ("sums", "preferences")),
    "grpo": ([*SCORED, *EVEN, "--round-prompts", "4"], ("sums", "prompts")),
    "kto": (TRAINING, ("sums", "feedback")),
    "online-dpo": ([*SCORED, *EVEN, "--group-size", "8"], ("sums", "prompts")),
    "ppo": ([*SCORED, "--round-prompts", "4"], ("sums", "prompts")),
    "reward": (STEPS, ("sums", "preferences")),
    "rlaif": ([*TRAINING, "--rl", "dpo,round_prompts=4"], ("sums", "prompts")),
    "sft": (TRAINING, ("sums", "demonstrations")),
    "spin": (TRAINING, ("sums", "demonstrations")),
}
ROWS = 8

Files = dict[str, bytes | None]  # by path; None for a folder


@dataclass(frozen=True)
class State:
    """The files at one moment of a run, as a kill leaves them.

    Attributes:
        site: the last operation, as "callers: function".
        files: the files.
        is_cut: that operation was in the middle of a write.
    """

    site: str
    files: Files
    is_cut: bool = False


class Recorder:
    """Reads a folder before and after each file operation, and keeps every state of it.

    `after` is called with the number of operations that have changed something, after each.
    """

    def __init__(self, folder: Path, after: Callable[[int], None] | None = None):
        self.folder, self.after = folder, after
        self.seen: dict[str, tuple[Any, bytes | None]] = {}
        self.states = [State("start", self.read())]

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        """Look at the folder if the call is a file operation; for `sys.setprofile`."""
        if not event.startswith("c_") or function.__name__ not in OPERATIONS:
            return
        files = self.read()
        if files != self.states[-1].files:
            self.states.append(State(describe_site(frame, function.__name__), files))
            if self.after is not None:
                self.after(len(self.states) - 1)

    def read(self) -> Files:
        """Return the files of the folder; one that has not changed is not read again."""
        now: dict[str, tuple[Any, bytes | None]] = {}
        for path in [self.folder, *self.folder.rglob("*")]:
            # A name that holds the id of its process outlives that process in a kill, not here.
            name = str(path.relative_to(self.folder)).replace(f"-{os.getpid()}-", f"-{DEAD}-")
            facts = path.stat()
            key = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if path.is_dir():
                now[name] = (None, None)
            elif name in self.seen and self.seen[name][0] == key:
                now[name] = self.seen[name]
            else:
                now[name] = (key, path.read_bytes())
        self.seen = now
        return {name: data for name, (_, data) in now.items()}


def describe_site(frame: FrameType | None, function: str) -> str:
    """Return the three innermost of alignzoo's functions that led to a call, and the call."""
    callers: list[str] = []
    while frame is not None and len(callers) < 3:
        if frame.f_code.co_filename.startswith((f"{ROOT}/alignzoo", f"{ROOT}/plugins")):
            callers.insert(0, frame.f_code.co_qualname)
        frame = frame.f_back
    return f"{' > '.join(callers)}: {function}"


# --- runs


def make_command(algorithm: str, data: Path, folder: Path) -> list[str]:
    """Return the words of an algorithm's run in `folder`; its rows are written to `data`."""
    words, source = RUNS[algorithm]
    command = ["run", algorithm, "--eval-size", "2", *words]
    command += ["--output-dir", str(folder), "--name", RUN]
    if source is not None:
        task, view = source
        rows = discovery.load_plugin("tasks", task)().rows(view, "train")[:ROWS]
        path = data / f"{task}-{view}.jsonl"
        path.write_text(json_lines(rows))
        command += ["--data", str(path)]
    return command


def record(words: list[str], folder: Path) -> tuple[int, list[State]]:
    """Run a command; return its exit code, and the states of a folder meanwhile."""
    recorder = Recorder(folder)
    sys.setprofile(recorder)
    try:
        code = status(words)
    finally:
        sys.setprofile(None)
    return code, recorder.states


def kill_after(words: list[str], folder: Path, operation: int) -> int:
    """Run a command in a child that is killed after an operation, and return its exit code."""

    def kill(number: int) -> None:
        if number == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        sys.setprofile(Recorder(folder, kill))
        return status(words)

    return in_child(work)


def in_child(work: Callable[[], int]) -> int:
    """Do work in a copy of this process, and return its exit code: -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def resume_words(words: list[str], files: Files) -> tuple[list[str], int]:
    """Return the command that goes on from a state, and the exit code that it should have.

    A run of which nothing was written begins again; one that was finished is refused.
    """
    facts = files.get(f"{RUN}/run.json")
    if facts is None:
        return words, 0
    return [*words, "--resume"], 2 if json.loads(facts)["status"] == "finished" else 0


def find_faults(words: list[str], folder: Path, state: State, final: Files) -> list[str]:
    """Resume a run from a state in a child, and return what is not as in the final one."""
    restore(state.files, folder)
    command, expected = resume_words(words, state.files)
    code = in_child(lambda: status(command))
    if code != expected:
        return [f"exit code {code}"]
    return differences(Recorder(folder).read(), final)


# --- states


def with_cut_writes(states: list[State]) -> Iterator[State]:
    """Yield the states, and between two of them the new part of each file empty and half written.

    One call may write in several steps, and safetensors writes outside of Python.
    """
    yield states[0]
    for before, after in pairwise(states):
        for name, data in after.files.items():
            old = before.files.get(name, b"")
            is_moved = name not in before.files and data in before.files.values()
            if not data or old is None or old == data or is_moved or not data.startswith(old):
                continue
            for length in {len(old), (len(old) + len(data)) // 2}:
                files = {**before.files, name: data[:length]}
                if files != before.files:
                    yield State(after.site, files, is_cut=True)
        yield after


def without_copies(states: Iterable[State], known: set[str]) -> list[State]:
    """Return each state that is not known, once: what follows depends on the files alone.

    Add their keys to `known`.
    """
    found = []
    for state in states:
        key = key_of(state.files)
        if key not in known:
            known.add(key)
            found.append(state)
    return found


def key_of(files: Files) -> str:
    """Return a hash of files that is the same for runs that took other times."""
    return sha256(repr(sorted(comparable(files).items())).encode()).hexdigest()


def restore(files: Files, folder: Path) -> None:
    """Make a folder hold these files alone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in sorted(files.items()):
        if data is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).write_bytes(data)


def differences(ours: Files, theirs: Files) -> list[str]:
    """Return the names of the files that differ, but for times and the log."""
    one, other = comparable(ours), comparable(theirs)
    return sorted(
        name
        for name in one.keys() | other.keys()
        if one.get(name, "missing") != other.get(name, "missing")
    )


def comparable(files: Files) -> dict[str, Any]:
    """Return the contents of files by path, without times and the log, which says "resumed"."""
    return {
        path: comparable_content(Path(path).name, data)
        for path, data in files.items()
        if Path(path).name != "log.txt"
    }


def comparable_content(name: str, data: bytes | None) -> Any:
    """Return the content of a file without times; of JSON that is cut, the complete lines."""
    if data is None or not name.removesuffix(".tmp").endswith((".json", ".jsonl")):
        return data
    lines = data.splitlines(keepends=True) if ".jsonl" in name else [data]
    values = []
    for line in lines:
        try:
            values.append(without_times(json.loads(line)))
        except ValueError:
            values.append("cut" if line else "")
    for value in values:
        if isinstance(value, dict):  # hashes of what has times: a state, a line of a journal
            value.pop("state.json" if "manifest.json" in name else "sha256", None)
    return values


def without_times(value: Any) -> Any:
    """Return a value of JSON without times, memory, and what a cache saved."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value

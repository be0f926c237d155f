"""Kill runs before and after every one of their file operations, and resume each.

    python benchmarks/crashes/sweep.py              # the algorithms without a row
    python benchmarks/crashes/sweep.py sft ppo      # these, again if need be

Each algorithm's short run is recorded (`crash_points.py`), and resumed from every state that it
leaves on disk. What stands there when it is finished must equal what the uninterrupted run left:
weights, metrics, evaluations, feedback, caches, and the ledger but for seconds and what a cache
saved. One resumed run for each place in the code is recorded as well, and resumed again from the
states that are new.

A row is appended to `benchmarks/results/crashes/sweep.jsonl` when an algorithm is done.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from crash_points import (
    Files,
    State,
    differences,
    find_faults,
    in_child,
    make_command,
    record,
    restore,
    resume_words,
    with_cut_writes,
    without_copies,
)

from alignzoo.files import append_lines, read_lines

# Offline, rounds of many steps, labels of a judge, no training, a journal and a cache.
SWEPT = ["sft", "ppo", "rlaif", "best-of-n", "constitutional"]
RESULTS = Path(__file__).parents[1] / "results" / "crashes" / "sweep.jsonl"


@dataclass
class Row:
    """What the sweep of one algorithm came to.

    Attributes:
        operations: calls of the uninterrupted run that changed something on disk.
        sites: different places in the code that made them.
        killed_once: states that the run was resumed from, each one once.
        cut: those of them in the middle of a write.
        killed_twice: states of resumed runs that the uninterrupted run never has.
        faults: site and what was wrong, of each state that did not lead to the same end.
        seconds: how long it took.
    """

    algorithm: str
    operations: int
    sites: int
    killed_once: int
    cut: int
    killed_twice: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main(algorithms: list[str]) -> None:
    """Sweep the algorithms, and append their rows."""
    torch.set_num_threads(1)
    done = {row["algorithm"] for row in read_lines(RESULTS)}
    report = silence()
    for algorithm in algorithms or [name for name in SWEPT if name not in done]:
        with tempfile.TemporaryDirectory() as folder:
            row = sweep(algorithm, Path(folder), report)
        append_lines(RESULTS, [asdict(row)])
        print(row, file=report)


def silence() -> TextIO:
    """Send what runs print to nowhere, and return a stream to the user."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return report


def sweep(algorithm: str, base: Path, report: TextIO) -> Row:
    """Resume an algorithm's run from each of its states, and from the new ones of those runs."""
    started = time.monotonic()
    folder = base / "work"
    folder.mkdir()
    os.environ["ALIGNZOO_CACHE"] = str(folder / "cache")
    words = make_command(algorithm, base, folder)
    code, recorded = record(words, folder)
    assert code == 0
    final = recorded[-1].files
    known: set[str] = set()
    states = without_copies(with_cut_writes(recorded), known)
    row = Row(
        algorithm,
        operations=len(recorded) - 1,
        sites=len({state.site for state in recorded[1:]}),
        killed_once=len(states),
        cut=sum(state.is_cut for state in states),
    )
    more: list[State] = []
    sites = set()
    for number, state in enumerate(states, start=1):
        if state.site in sites:
            faults = find_faults(words, folder, state, final)
        else:
            sites.add(state.site)
            faults, met = record_resumed(words, folder, state, final)
            more += without_copies(with_cut_writes(met), known)
        row.faults += [f"{state.site}: {fault}" for fault in faults]
        print(f"{algorithm}: {number}/{len(states)}, {len(more)} new {faults}", file=report)
    row.killed_twice = len(more)
    for number, state in enumerate(more, start=1):
        faults = find_faults(words, folder, state, final)
        row.faults += [f"resumed, {state.site}: {fault}" for fault in faults]
        print(f"{algorithm}: killed twice {number}/{len(more)} {faults}", file=report)
    row.seconds = round(time.monotonic() - started)
    return row


def record_resumed(
    words: list[str], folder: Path, state: State, final: Files
) -> tuple[list[str], list[State]]:
    """Resume a run in a child; return what is wrong at its end, and the states on the way."""
    restore(state.files, folder)
    command, expected = resume_words(words, state.files)
    answer = folder.parent / "answer"

    def work() -> int:
        code, met = record(command, folder)
        answer.write_bytes(pickle.dumps((code, met)))
        return 0

    if in_child(work) != 0:
        return ["no answer"], []
    code, met = pickle.loads(answer.read_bytes())
    if code != expected:
        return [f"exit code {code}"], met
    return differences(met[-1].files, final), met


if __name__ == "__main__":
    main(sys.argv[1:])

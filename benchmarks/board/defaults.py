"""Try the default peak learning rates and others on `dev`, with whole passes over the rows.

    python benchmarks/board/defaults.py --jobs 2     # run what is missing, and print the table
    python benchmarks/board/defaults.py --jobs 0     # print the table

The trials of a board are shorter than a pass, so they say little about a default, which is meant
for one. A row is appended to `benchmarks/results/board/defaults.jsonl` when its run has finished,
and a run with a row is not run again. `test` is not looked at.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from alignzoo.files import append_lines, read_lines
from alignzoo_compare.cell import Cell
from alignzoo_compare.tuning import Outcome, next_trials
from alignzoo_compare.workers import LocalWorkers

RESULTS = Path(__file__).parent.parent / "results" / "board" / "defaults.jsonl"
TASKS = ("style", "sums", "constitution", "format", "walks", "retention")
# Their trials on a board, which are shorter, were better with three times the default.
RAISED = ("grpo", "ppo", "raft", "online-dpo", "nash-md", "dpo")
# Their defaults had been chosen on prompts of this task whose scores are reported.
REPORTED = ("rlaif", "self-rewarding")


@dataclass(frozen=True)
class Sweep:
    """Runs of an entry on a task: at its default rate and `others` more, with these settings."""

    entry: str
    task: str
    others: int
    settings: dict[str, Any] = field(default_factory=dict)


SWEEPS = [
    *(Sweep(entry, task, 1) for task in TASKS for entry in RAISED),
    *(Sweep(entry, "constitution", 2, {"epochs": 2.0}) for entry in REPORTED),
]
COMMON = {
    "seed": 1000,
    "eval_size": 200,
    "eval_before": False,
    "eval_held_out": False,
    "eval_split": "dev",
}
KEPT = ("entry", "task", "trial", "command", "status", "error", "learning_rate", "steps")


def rows_of(sweep: Sweep, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of an entry on a task, that of its default rate first."""
    return [row for row in rows if (row["entry"], row["task"]) == (sweep.entry, sweep.task)]


def next_cell(sweep: Sweep, rows: list[dict[str, Any]]) -> Cell | None:
    """Return the next run of an entry on a task; None when all are done."""
    done = rows_of(sweep, rows)
    outcomes = [Outcome(row["trial"], mean_score(row), row["learning_rate"]) for row in done]
    trials = next_trials(outcomes, 1 + sweep.others, None)
    if not trials:
        return None
    place = {"algorithm": sweep.entry, "task": sweep.task}
    settings = {**place, **COMMON, **sweep.settings, **trials[0]}
    return Cell("trial", sweep.entry, sweep.task, len(done), settings, trials[0])


def mean_score(row: dict[str, Any]) -> float:
    """Return the mean score of a row, -inf if its run failed."""
    return statistics.fmean(row["score"]) if row["score"] else -math.inf


def run_missing(jobs: int, folder: Path) -> None:
    """Run what has no row yet, `jobs` runs at a time, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = LocalWorkers(jobs, folder, gpus=0)
    with ThreadPoolExecutor(jobs) as threads:
        try:
            list(threads.map(lambda sweep: run_sweep(sweep, workers, folder), SWEEPS))
        finally:
            workers.stop()


def run_sweep(sweep: Sweep, workers: LocalWorkers, folder: Path) -> None:
    """Run what a sweep lacks, in order: the other rates follow from the default one."""
    while cell := next_cell(sweep, read_lines(RESULTS)):
        found = workers.submit(cell, folder, allow_code=False).result()
        row = {name: found.get(name) for name in KEPT}
        row["score"] = found.get("items", {}).get("score", [])
        row["flops"] = found.get("ledger", {}).get("total_flops")
        append_lines(RESULTS, [row])
        print(cell.name, f"{mean_score(row):.3f}", flush=True)


def compare_rates(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line per entry and rate: its paired difference to the default rate, over the tasks.

    The interval of 95% is that of the items; the tasks and the seed are taken as given.
    """
    for entry in (*RAISED, *REPORTED):
        sweeps = [sweep for sweep in SWEEPS if sweep.entry == entry]
        done = [found for sweep in sweeps if (found := rows_of(sweep, rows))]
        for place in range(1, 1 + sweeps[0].others):
            pairs = [
                (found[0], found[place])
                for found in done
                if len(found) > place and found[0]["score"] and found[place]["score"]
            ]
            if pairs:
                yield f"{entry:15} {compare_pairs(pairs)}"


def compare_pairs(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Return the rate of the second runs in those of the first, and what they gain by task."""
    gains = [
        [b - a for a, b in zip(first["score"], second["score"], strict=True)]
        for first, second in pairs
    ]
    means = [statistics.fmean(gain) for gain in gains]
    squares = [statistics.variance(gain) / len(gain) for gain in gains]
    error = 1.96 * math.sqrt(sum(squares)) / len(gains)
    first, second = pairs[0]
    times = second["learning_rate"] / first["learning_rate"]
    tasks = ", ".join(
        f"{one['task']} {one['steps']} steps {mean_score(one):.3f} {mean:+.3f}"
        for (one, _), mean in zip(pairs, means, strict=True)
    )
    return f"x{times:.2g}  {statistics.fmean(means):+.3f} ± {error:.3f}  ({tasks})"


def main(
    jobs: Annotated[int, typer.Option(min=0, help="runs at a time")] = 2,
    folder: Annotated[Path, typer.Option(help="where runs are kept")] = Path("runs/defaults"),
) -> None:
    """Run what is missing, and print what the other rates gain on `dev`."""
    if jobs:
        run_missing(jobs, folder)
    print(*compare_rates(read_lines(RESULTS)), sep="\n")


if __name__ == "__main__":
    typer.run(main)

"""Kill `alignzoo compare` with all installed algorithms five times, and hold its end to the whole.

    python benchmarks/compare/kill.py

The grid has every installed algorithm that can be compared, two trials and one seed, on a task with
few rows (`few.py`), at the smallest budget at which each takes a step. It is run once from start to
end, and once with a SIGKILL at five instants: each after a number of finished cells, and in the
middle of the next ones, both drawn with a seed. What stands in the tables at the end must be the
same, byte for byte but for seconds and memory, and so must the rows behind them, but for what a
cache saved.

The result is `benchmarks/results/compare/kill.json`, and the table `kill.md` beside it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from alignzoo.changes import describe_platform
from alignzoo.files import read_lines
from alignzoo_compare.grid import BEST_OF_N, default_entries

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "compare"
SEED, KILLS = 0, 5
TRIALS, SEEDS = 2, 1
LONG_ROUNDS = ("irpo", "self-rewarding", "sppo")  # of 512 prompts
JOBS = 2
TIMES = {"seconds", "MiB", "peak_memory_bytes"}  # columns that no two runs share


@dataclass(frozen=True)
class Kill:
    """A kill: after so many finished cells, so many seconds into the next ones."""

    cells: int
    seconds: float


def write_grid(path: Path) -> None:
    """Write the grid: all installed algorithms, with rounds of few prompts."""
    entries, _ = default_entries()
    for name in LONG_ROUNDS:
        entries[name]["options"] = {"round_prompts": 4}
    grid = {
        "tasks": [str(HERE / "few.py")],
        "seeds": SEEDS,
        "trials": TRIALS,
        "budget": "64feedback",
        "eval_size": 8,
        "common": {"batch_size": 2, "max_new_tokens": 8},
        "entries": entries,
    }
    path.write_text(yaml.safe_dump(grid), encoding="utf-8")


def start(grid: Path, board: Path) -> subprocess.Popen[str]:
    """Start the comparison, or take it up again, with a cache of its own."""
    words = f"-m alignzoo compare --allow-code --jobs {JOBS}".split()
    return subprocess.Popen(
        [sys.executable, *words, "--grid", str(grid), "--out", str(board)],
        env={**os.environ, "ALIGNZOO_CACHE": str(board.with_suffix(".cache"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a comparison, which must be a good one."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}\n{output}")


def kill(grid: Path, board: Path, at: Kill) -> int:
    """Start the comparison, kill it at an instant, and return how many cells it had finished."""
    process = start(grid, board)
    while count_rows(board) < at.cells:
        if process.poll() is not None:
            finish(process)
            raise SystemExit("it ended before it could be killed")
        time.sleep(0.02)
    time.sleep(at.seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return count_rows(board)


def count_rows(board: Path) -> int:
    """Return the number of cells that a board has finished."""
    path = board / "cells.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def without_times(board: Path) -> dict[str, str]:
    """Return the tables and rows of a board as texts, without times and memory."""
    return {
        "table.md": "\n".join(plain_markdown((board / "table.md").read_text().splitlines())),
        "table.csv": plain_csv((board / "table.csv").read_text()),
        "cells.jsonl": "\n".join(sorted(map(plain_row, read_lines(board / "cells.jsonl")))),
    }


def plain_markdown(lines: list[str]) -> list[str]:
    """Return lines of Markdown with the columns of times left out of tables."""
    kept: list[int] = []
    found = []
    for line in lines:
        if line.startswith("| entry |"):
            kept = [place for place, name in enumerate(split(line)) if name not in TIMES]
        if line.startswith("|---"):
            line = "|" + "---|" * len(kept)
        elif line.startswith("| "):
            line = f"| {' | '.join(split(line)[place] for place in kept)} |"
        found.append(line)
    return found


def split(line: str) -> list[str]:
    """Return the cells of a row in Markdown."""
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def plain_csv(text: str) -> str:
    """Return a table in CSV without the columns of times."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return "\n".join(
        json.dumps({name: cell for name, cell in row.items() if name not in TIMES}) for row in rows
    )


def plain_row(row: dict[str, Any]) -> str:
    """Return a row of a cell without its times, its machine and what a cache saved.

    A killed run that asks a judge again reads the answers that it already had, and is charged for
    them all the same.
    """
    kept = {name: value for name, value in row.items() if name not in ("environment", "ledger")}
    changing = {*TIMES, "saved"}
    ledger = {name: value for name, value in row.get("ledger", {}).items() if name not in changing}
    return json.dumps(kept | {"ledger": ledger}, sort_keys=True)


def main() -> None:
    """Run the grid whole and killed, compare the ends, and write the result."""
    random = Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        grid, whole, killed = (Path(folder) / name for name in ("grid.yaml", "whole", "killed"))
        write_grid(grid)
        began = time.monotonic()
        finish(start(grid, whole))
        seconds = time.monotonic() - began
        cells = count_rows(whole)
        places = sorted(random.sample(range(1, cells), KILLS))
        instants = [Kill(place, random.uniform(0, JOBS * seconds / cells)) for place in places]
        finished = [kill(grid, killed, at) for at in instants]
        finish(start(grid, killed))
        one, other = without_times(whole), without_times(killed)
        rows = read_lines(killed / "cells.jsonl")
        result: dict[str, Any] = {
            "cells": cells,
            "entries": sorted({row["entry"] for row in rows}),
            "status": {s: sum(r["status"] == s for r in rows) for s in {r["status"] for r in rows}},
            "least_steps": min(row.get("steps") or 0 for row in rows if trains(row)),
            "kills": [
                {**asdict(at), "seconds": round(at.seconds, 2), "finished": done}
                for at, done in zip(instants, finished, strict=True)
            ],
            "differ": [name for name in one if one[name] != other[name]],
            "environment": describe_platform(),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "kill.json").write_text(json.dumps(result, indent=1) + "\n")
        table = other["table.md"].replace(str(HERE), "benchmarks/compare")
        (RESULTS / "kill.md").write_text(table + "\n")
        print(json.dumps(result, indent=1))
        for name in result["differ"]:
            print(*list_differences(one[name], other[name]), sep="\n")


def trains(row: dict[str, Any]) -> bool:
    """Return whether a row is of an entry that trains."""
    return row["settings"]["algorithm"] != BEST_OF_N


def list_differences(one: str, other: str) -> list[str]:
    """Return the lines of two texts that differ."""
    pairs = zip(one.splitlines(), other.splitlines(), strict=False)
    return [f"- {a}\n+ {b}" for a, b in pairs if a != b]


if __name__ == "__main__":
    main()

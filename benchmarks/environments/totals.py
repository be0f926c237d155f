"""Train zoo-abacus on `totals`, in the environment with the calculator, and write a row per run.

    python benchmarks/environments/totals.py                    # run what is missing
    python benchmarks/environments/totals.py --only grpo

A row is appended to `benchmarks/results/environments/totals.jsonl` when its run has finished, and a
run with a row is not run again. Learning rates were chosen on `dev`, at a seed that no reported run
has; reported runs are evaluated on `test`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from alignzoo.files import append_lines, read_lines
from alignzoo.session import execute, recipe_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "environments" / "totals.jsonl"
MEASURES = ("score", "asked", "calls", "length")


def list_runs() -> Iterator[dict[str, Any]]:
    """Yield the settings of each run: those of tuning first, then all methods by seed."""
    grid = yaml.safe_load((HERE / "totals.yaml").read_text(encoding="utf-8"))
    for split in ("dev", "test"):
        runs = [
            {"algorithm": name, **grid["common"], **settings, "eval_split": split, "seed": seed}
            for name, trials in grid[split].items()
            for settings in trials["settings"]
            for seed in trials["seeds"]
        ]
        yield from sorted(runs, key=lambda run: run["seed"])


def read_rows() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return read_lines(RESULTS)


def run_once(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate with these settings, and return the row."""
    given = {name: value for name, value in settings.items() if name != "algorithm"}
    with tempfile.TemporaryDirectory() as out:
        result = execute(recipe_for(settings["algorithm"], {**given, "output_dir": out}))
        facts = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    measured = {
        phase: {name: facts["results"][phase][name] for name in MEASURES}
        for phase in ("before", "after")
    }
    return {
        "settings": settings,
        **measured,
        "learning_rate": facts["learning_rate"],
        "ledger": facts["ledger"],
        "fingerprints": facts["fingerprints"],
        "environment": facts["environment"],
    }


def main(only: str = "") -> None:
    """Run what has no row yet; with ONLY, of these algorithms alone."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for settings in list_runs():
        done = any(row["settings"] == settings for row in read_rows())
        if done or (only and settings["algorithm"] not in only.split(",")):
            continue
        row = run_once(settings)
        append_lines(RESULTS, [row])
        before, after = (row[phase]["score"]["mean"] for phase in ("before", "after"))
        print(settings, f"{before:.3f} -> {after:.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)

"""Run a grid of methods, tasks and seeds with alignzoo, and write a row of results for each run.

    python benchmarks/studies/study.py offline             # run what is missing
    python benchmarks/studies/study.py offline --only dpo,kto --seeds 0,1

The grid is `STUDY.yaml` beside this file. A row is appended to
`benchmarks/results/studies/STUDY.jsonl` when its run has finished, and a run with a row is not run
again: a stopped study continues, and two processes with different `--only` can share one.

A method with `from: OTHER` starts from the result of that method at the same task and seed.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
import yaml

from alignzoo.evaluation.statistics import mean_with_interval
from alignzoo.record import algorithm_hash
from alignzoo.session.session import Result, execute, recipe_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "studies"
# The task's score, or for a reward model its accuracy on held-out pairs.
MEASURES = ("score", "held-out/rewards/accuracies")
# Former names of options, in rows recorded before the renaming.
FORMER_OPTIONS = {"loss": "loss_type", "variant": "loss_type"}


@dataclass(frozen=True)
class Cell:
    """One run of a study: a method (a name for an algorithm and settings), a task and a seed."""

    method: str
    settings: dict[str, Any]
    task: str
    seed: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Cell:
        """Return the cell of a row of results."""
        return cls(row["method"], row["settings"], row["task"], row["seed"])

    @property
    def key(self) -> str:
        """Return the identity of this run, settings included: changed settings are a new run.

        Options count by their current names, so that rows recorded before a renaming are found.
        """
        settings = rename_former_options(self.settings)
        return json.dumps([self.method, settings, self.task, self.seed], sort_keys=True)


def list_cells(study: str) -> Iterator[Cell]:
    """Yield the grid in the order of its runs: all methods at one seed before the next seed."""
    grid = yaml.safe_load((HERE / f"{study}.yaml").read_text(encoding="utf-8"))
    methods = {name: {"algorithm": name, **(own or {})} for name, own in grid["methods"].items()}
    for seed in grid["seeds"]:
        for method, settings in methods.items():
            if "from" in settings:  # in full, so that a row has the settings of its start
                settings = settings | {"from": methods[settings["from"]]}
            for task in grid["tasks"]:
                yield Cell(method, settings, task, seed)


def read_results(study: str) -> list[dict[str, Any]]:
    """Return the rows of a study so far."""
    path = RESULTS / f"{study}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Run a cell and return its row: estimates before and after, and the gain item by item."""
    with tempfile.TemporaryDirectory() as out:
        result = train_run(cell.settings, cell.task, cell.seed, out)
        facts = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
        logged = (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in logged]
    assert result.before is not None and result.after is not None
    pairs = zip(result.before.items, result.after.items, strict=True)
    gains = [after["score"] - before["score"] for before, after in pairs]
    return {
        **asdict(cell),
        "before": facts["results"]["before"],
        "after": facts["results"]["after"],
        "during": evaluations_between(facts["results"], steps),
        "alarms": first_alarms(steps),
        "gain": asdict(mean_with_interval(gains)) if gains else None,
        "fingerprints": facts["fingerprints"] | {"plugin": algorithm_hash(facts)},
        "ledger": facts["ledger"],
        "environment": facts["environment"],
    }


def train_run(settings: dict[str, Any], task: str, seed: int, out: str) -> Result:
    """Train in the folder `out`, from the result of another run if the settings say so."""
    settings = {**settings, "task": task, "seed": seed}
    start = settings.pop("from", None)
    if start is not None:
        settings["model"] = train_start(json.dumps(start), task, seed)
    return execute(recipe_for(settings.pop("algorithm"), settings, {"output_dir": out}))


@cache
def train_start(settings: str, task: str, seed: int) -> str:
    """Return the folder of a run to start from: trained once, and deleted when the program ends."""
    out = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    return str(train_run(json.loads(settings), task, seed, out).folder)


def evaluations_between(
    results: dict[str, Any], steps: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the evaluations between the first and the last: the means of all measures of
    completions, and the training reward at that step."""
    found = []
    for phase, scores in results.items():
        if phase in ("before", "after"):
            continue
        step = int(phase.removeprefix("step "))
        means = {name: score["mean"] for name, score in scores.items() if "/" not in name}
        found.append({"step": step, **means, "reward": steps[step - 1].get("reward")})
    return found


def first_alarms(steps: list[dict[str, Any]]) -> dict[str, int]:
    """Return the first step of each alarm that was raised."""
    names = {name for row in steps for name in row if name.startswith("alarms/")}
    return {
        name.removeprefix("alarms/"): next(row["step"] for row in steps if name in row)
        for name in sorted(names)
    }


def main(study: str, only: str = "", seeds: str = "") -> None:
    """Run the cells of a study that have no row yet."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = {Cell.of(row).key for row in read_results(study)}
    for cell in list_cells(study):
        other_method = only and cell.method not in only.split(",")
        other_seed = seeds and str(cell.seed) not in seeds.split(",")
        if cell.key in done or other_method or other_seed:
            continue
        row = run_cell(cell)
        with (RESULTS / f"{study}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(cell.method, cell.task, cell.seed, format_change(row), flush=True)


def rename_former_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a method's settings with options by their current names, those of its start too."""
    renamed = dict(settings)
    if "options" in settings:
        options = settings["options"].items()
        renamed["options"] = {FORMER_OPTIONS.get(name, name): value for name, value in options}
    if "from" in settings:
        renamed["from"] = rename_former_options(settings["from"])
    return renamed


def main_measure(row: dict[str, Any]) -> str:
    """Return the name of the measure that rates the row's model."""
    return next(name for name in MEASURES if name in row["after"])


def format_change(row: dict[str, Any]) -> str:
    """Return the main measure before and after, with intervals if it has them."""
    estimates = (row[phase][main_measure(row)] for phase in ("before", "after"))
    return " -> ".join(
        f"{e['mean']:.3f}" + (f" [{e['low']:.3f}, {e['high']:.3f}]" if e["low"] is not None else "")
        for e in estimates
    )


def format_mean(values: list[float], sign: str = "") -> str:
    """Return a mean and its interval, if it has one; `sign` "+" shows the sign of each number."""
    found = mean_with_interval(values)
    if found.low is None:
        return f"{found.mean:{sign}.3f}"
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


if __name__ == "__main__":
    typer.run(main)

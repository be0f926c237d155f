"""A grid of methods, tasks and seeds, each a run of alignzoo; a row of results for each.

    python benchmarks/studies/study.py offline             # what is missing of it
    python benchmarks/studies/study.py offline --only dpo,kto --seeds 0,1

The grid is `STUDY.yaml` beside this file. Rows go to `benchmarks/results/studies/STUDY.jsonl`, one
as soon as its run is finished; a run whose row is there is not run again, so that a study that was
stopped goes on, and two processes with different `--only` may work on one.

A method that starts `from:` another one begins with that one's result at the same task and seed.
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
from alignzoo.session.session import Result, execute, recipe_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "studies"
# The task's score, or for a reward model, which answers nothing, how often it is right about a
# held-out pair.
MEASURES = ("score", "held-out/rewards/accuracies")


@dataclass(frozen=True)
class Cell:
    """One run of a study: a method (a name for an algorithm and settings), a task and a seed."""

    method: str
    settings: dict[str, Any]
    task: str
    seed: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Cell:
        """The cell that a row of results belongs to."""
        return cls(row["method"], row["settings"], row["task"], row["seed"])

    @property
    def key(self) -> str:
        """What tells this run from all others, settings included: changed ones are run anew."""
        return json.dumps([self.method, self.settings, self.task, self.seed], sort_keys=True)


def cells(study: str) -> Iterator[Cell]:
    """The grid in the order in which it is run: all methods at one seed before the next seed."""
    grid = yaml.safe_load((HERE / f"{study}.yaml").read_text(encoding="utf-8"))
    methods = {name: {"algorithm": name, **(own or {})} for name, own in grid["methods"].items()}
    for seed in grid["seeds"]:
        for method, settings in methods.items():
            if "from" in settings:  # with all its settings, so that a row says what it began with
                settings = settings | {"from": methods[settings["from"]]}
            for task in grid["tasks"]:
                yield Cell(method, settings, task, seed)


def rows_of(study: str) -> list[dict[str, Any]]:
    """The rows of a study that there are."""
    path = RESULTS / f"{study}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(cell: Cell) -> dict[str, Any]:
    """The row of a run: estimates before and after, and the gain item by item."""
    with tempfile.TemporaryDirectory() as out:
        result = trained(cell.settings, cell.task, cell.seed, out)
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
        "during": during(facts["results"], steps),
        "alarms": alarms(steps),
        "gain": asdict(mean_with_interval(gains)) if gains else None,
        "fingerprints": facts["fingerprints"] | {"plugin": facts["plugin"]["sha256"]},
        "ledger": facts["ledger"],
        "environment": facts["environment"],
    }


def trained(settings: dict[str, Any], task: str, seed: int, out: str) -> Result:
    """A run in that folder, after the one that it starts from."""
    settings = {**settings, "task": task, "seed": seed}
    start = settings.pop("from", None)
    if start is not None:
        settings["model"] = start_of(json.dumps(start), task, seed)
    return execute(recipe_for(settings.pop("algorithm"), settings, {"output_dir": out}))


@cache
def start_of(settings: str, task: str, seed: int) -> str:
    """The folder of a run that others start from: trained once, and there while this program is."""
    out = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    return str(trained(json.loads(settings), task, seed, out).folder)


def during(results: dict[str, Any], steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations between the first and the last: the score, KL and whatever else is measured
    of completions, and the reward at that step."""
    found = []
    for phase, scores in results.items():
        if phase in ("before", "after"):
            continue
        step = int(phase.removeprefix("step "))
        means = {name: score["mean"] for name, score in scores.items() if "/" not in name}
        found.append({"step": step, **means, "reward": steps[step - 1].get("reward")})
    return found


def alarms(steps: list[dict[str, Any]]) -> dict[str, int]:
    """The step at which each alarm that rang did so first."""
    names = {name for row in steps for name in row if name.startswith("alarms/")}
    return {
        name.removeprefix("alarms/"): next(row["step"] for row in steps if name in row)
        for name in sorted(names)
    }


def main(study: str, only: str = "", seeds: str = "") -> None:
    """Run what is missing of a study."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = {Cell.of(row).key for row in rows_of(study)}
    for cell in cells(study):
        other_method = only and cell.method not in only.split(",")
        other_seed = seeds and str(cell.seed) not in seeds.split(",")
        if cell.key in done or other_method or other_seed:
            continue
        row = run(cell)
        with (RESULTS / f"{study}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(cell.method, cell.task, cell.seed, estimates(row), flush=True)


def measure_of(row: dict[str, Any]) -> str:
    """What tells how good the row's model is."""
    return next(name for name in MEASURES if name in row["after"])


def estimates(row: dict[str, Any]) -> str:
    """Before and after, with their intervals where there are any."""
    found = (row[phase][measure_of(row)] for phase in ("before", "after"))
    return " -> ".join(
        f"{e['mean']:.3f}" + (f" [{e['low']:.3f}, {e['high']:.3f}]" if e["low"] is not None else "")
        for e in found
    )


if __name__ == "__main__":
    typer.run(main)

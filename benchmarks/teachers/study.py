"""Run a grid of chained runs, such as a teacher and its students, and print its table.

    python benchmarks/teachers/study.py test                # run what is missing
    python benchmarks/teachers/study.py test --table        # or dev, or steps

The grid is `GRID.yaml` beside this file, one run for each method and seed. A row is appended to
`benchmarks/results/teachers/GRID.jsonl` when a run has finished, and a run with a row is not run
again. With `from`, `teacher_from`, `reward_from` or `samples_from` the result of another method at
the same seed is the model that a run starts from, its teacher, its reward model, or the writer of
the demonstrations that it learns from. A method under `needed` is run for others alone, once for
all seeds if it names one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
import yaml
from sample import write_samples

from alignzoo.evaluation.statistics import mean_with_interval
from alignzoo.files import append_lines, digest, read_lines
from alignzoo.session import execute, recipe_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "teachers"
TASK = "sums"
OTHERS = ("from", "teacher_from", "reward_from", "samples_from")  # settings that name a method
RUN = "run"  # the name of a run in its folder
Settings = dict[str, Any]


class Trained(NamedTuple):
    """A run that has finished, and the FLOPs of the samples of another one that it learned from."""

    folder: Path
    samples_flops: float = 0.0


def list_cells(grid: str) -> Iterator[tuple[str, Settings, int]]:
    """Yield method, settings and seed of each run: all methods at one seed before the next one."""
    found = yaml.safe_load((HERE / f"{grid}.yaml").read_text(encoding="utf-8"))
    listed = found.get("needed", {}) | found["methods"]
    methods = {name: {"algorithm": name, **(own or {})} for name, own in listed.items()}
    for seed in found["seeds"]:
        for method in found["methods"]:
            settings = methods[method]
            # In full, so that a row has the settings of the runs that it needs.
            others = {key: methods[settings[key]] for key in OTHERS if key in settings}
            yield method, settings | others, seed


def train_run(settings: Settings, seed: int, runs: Path) -> Trained:
    """Train in a folder below `runs`, and first the runs that this one needs and that it lacks."""
    found = {"task": TASK, **settings, "seed": settings.get("seed", seed)}
    out = folder_of(settings, seed, runs)
    shutil.rmtree(out, ignore_errors=True)  # what a stopped study has left
    out.mkdir(parents=True)
    flops = 0.0
    for key in [key for key in OTHERS if key in found]:
        folder = str(train_needed(found.pop(key), seed, runs))
        if key == "samples_from":
            flops = write_samples(folder, TASK, seed, out / "samples.jsonl")
            found["task"] = f"{HERE}/studied_sums.py,samples={out}/samples.jsonl"
        else:
            uses: dict[str, Settings] = {
                "from": {"model": folder},
                "teacher_from": {"teacher": folder},
                "reward_from": {"reward": [folder]},
            }
            found |= uses[key]
    found |= {"output_dir": str(out), "name": RUN}
    return Trained(execute(recipe_for(found.pop("algorithm"), found)).folder, flops)


def train_needed(settings: Settings, seed: int, runs: Path) -> Path:
    """Return the folder of a run that another one needs; train it if there is none."""
    seed = settings.get("seed", seed)
    folder = folder_of(settings, seed, runs) / RUN
    facts = folder / "run.json"
    if facts.exists() and json.loads(facts.read_text(encoding="utf-8"))["status"] == "finished":
        return folder
    return train_run(settings, seed, runs).folder


def folder_of(settings: Settings, seed: int, runs: Path) -> Path:
    """Return the folder of a run, named by a hash of what it is."""
    return runs / digest(json.dumps([settings, TASK, seed], sort_keys=True))


def make_row(method: str, settings: Settings, seed: int, trained: Trained) -> dict[str, Any]:
    """Return the row of a run: estimates before, on the way and after, and what it cost."""
    folder = trained.folder
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    flops = [row["flops"] for row in read_lines(folder / "metrics.jsonl")]
    results = facts["results"]
    during = [
        {"step": step, "score": scores["score"]["mean"], "flops": flops[step - 1]}
        for phase, scores in results.items()
        if phase.startswith("step ")
        for step in [int(phase.removeprefix("step "))]
    ]
    return {
        "method": method,
        "settings": settings,
        "task": TASK,
        "seed": seed,
        "before": results["before"],
        "after": results["after"],
        "during": during,
        "fingerprints": facts["fingerprints"],
        "ledger": facts["ledger"],
        "samples_flops": trained.samples_flops,
        "environment": facts["environment"],
    }


def read_rows(grid: str) -> list[dict[str, Any]]:
    """Return the rows of a grid so far."""
    return read_lines(RESULTS / f"{grid}.jsonl")


def format_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table over seeds, with what each point of a run has cost."""
    yield "| method | steps | score, mean over seeds | FLOPs | seeds |"
    yield "|---|---|---|---|---|"
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        samples = row.get("samples_flops", 0.0)
        scores = [(str(x["step"]), x["score"], x["flops"]) for x in row["during"]]
        scores = [("0", row["before"]["score"]["mean"], -samples), *scores]
        scores.append(("all", row["after"]["score"]["mean"], row["ledger"]["total_flops"]))
        for step, score, flops in scores:
            points[row["method"], step].append((score, flops + samples))
    for (method, step), found in points.items():
        mean = mean_with_interval([score for score, _ in found])
        interval = f" [{mean.low:.3f}, {mean.high:.3f}]" if mean.low is not None else ""
        flops = sum(flops for _, flops in found) / len(found)
        yield f"| `{method}` | {step} | {mean.mean:.3f}{interval} | {flops:.2e} | {len(found)} |"


def main(
    grid: str, only: str = "", seeds: str = "", runs: str = "", *, table: bool = False
) -> None:
    """Run the cells of a grid that have no row yet, or print its table.

    Its runs are deleted at the end, unless a folder for `runs` is named: there, a study that goes
    on finds those that its methods need.
    """
    if table:
        print("\n".join(format_table(read_rows(grid))))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = {(row["method"], row["seed"]) for row in read_rows(grid)}
    with tempfile.TemporaryDirectory() as temporary:
        for method, settings, seed in list_cells(grid):
            other_method = only and method not in only.split(",")
            other_seed = seeds and str(seed) not in seeds.split(",")
            if (method, seed) in done or other_method or other_seed:
                continue
            trained = train_run(settings, seed, Path(runs or temporary))
            row = make_row(method, settings, seed, trained)
            append_lines(RESULTS / f"{grid}.jsonl", [row])
            print(method, seed, row["before"]["score"]["mean"], row["after"]["score"]["mean"])


if __name__ == "__main__":
    typer.run(main)

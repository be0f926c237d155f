"""Compare `grpo` rewarded by a judge's rating and by the same judge's marks on a rubric.

    python benchmarks/rubric/rubric_study.py --split dev --runs RUNS    # judge and rates
    python benchmarks/rubric/rubric_study.py --split test --runs RUNS   # run what is missing
    python benchmarks/rubric/rubric_study.py --table

The judge is trained first, in the folder RUNS, if it is not there. A row is appended to
`benchmarks/results/rubric/` when a run has finished, and a run with a row is not run again.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import typer
import yaml
from taught_judge import BASE, TASK, train_judge

from alignzoo.evaluation.statistics import Estimate, mean_with_interval
from alignzoo.files import append_lines, read_lines
from alignzoo.session import execute, recipe_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "rubric"
MEASURES = ("score", "length", "harmful", "bare_refusals", "over_refusals", "insults")
Row = dict[str, Any]


def list_runs(split: str) -> Iterator[Row]:
    """Yield what tells the runs of a split apart: seed, reward and learning rate."""
    grid = read_grid()
    for part in grid[split]:
        rewards = part.get("rewards", grid["rewards"])
        for seed, rate, reward in product(part["seeds"], part["learning_rates"], rewards):
            yield {"split": split, "seed": seed, "reward": reward, "learning_rate": rate}


def read_grid() -> Row:
    """Return the settings of the study."""
    grid: Row = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    return grid


def run_once(which: Row, runs: Path) -> Row:
    """Train with one reward, and return the row."""
    grid = read_grid()
    name = "-".join(map(str, which.values()))
    shutil.rmtree(runs / name, ignore_errors=True)  # what a stopped study has left
    settings = grid["common"] | {
        "model": BASE,
        "task": TASK,
        "reward": [f"judge,judge={runs}/judge{grid['rewards'][which['reward']]}"],
        "learning_rate": which["learning_rate"],
        "seed": which["seed"],
        "eval_split": which["split"],
    }
    folder = execute(recipe_for("grpo", settings | {"output_dir": str(runs), "name": name})).folder
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    measured = {
        phase: {measure: facts["results"][phase][measure] for measure in MEASURES}
        for phase in ("before", "after")
    }
    return {
        **which,
        "common": grid["common"],
        **measured,
        "ledger": facts["ledger"],
        "fingerprints": facts["fingerprints"],
        "environment": facts["environment"],
    }


def read_rows(name: str) -> list[Row]:
    """Return the rows of a file so far."""
    return read_lines(RESULTS / f"{name}.jsonl")


def format_tables() -> Iterator[str]:
    """Yield the lines of the tables: what the judge learned, then the two rewards over seeds."""
    yield f"| agreement with the task's code | {BASE} | the judge | n |"
    yield "|---|---|---|---|"
    agreement = read_rows("judge")[-1]["agreement"]
    for name, found in agreement["taught"].items():
        before = agreement["untaught"].get(name)
        cells = [show(Estimate(**one)) if one else "-" for one in (before, found)]
        yield f"| {name} | {' | '.join(cells)} | {found['n']} |"
    yield ""
    methods = group_rows("test")
    first = next(iter(methods.values()))
    shown = {"none | -": (first, "before")} | {
        f"{reward} | {rate:g}": (rows, "after") for (reward, rate), rows in methods.items()
    }
    yield "| reward | learning rate | score | FLOPs | the judge's | its calls | seeds |"
    yield "|---|---|---|---|---|---|---|"
    for name, (rows, phase) in shown.items():
        score = show(average(rows, phase, "score"))
        costs = "0 | 0 | 0" if phase == "before" else describe_costs(rows)
        yield f"| {name} | {score} | {costs} | {len(rows)} |"
    yield ""
    yield f"| reward | learning rate | {' | '.join(MEASURES[1:])} |"
    yield "|---" * (len(MEASURES) + 1) + "|"
    for name, (rows, phase) in shown.items():
        means = (f"{average(rows, phase, measure).mean:.3f}" for measure in MEASURES[1:])
        yield f"| {name} | {' | '.join(means)} |"
    yield ""
    for (reward, rate), rows in methods.items():
        if reward == "rubric":
            yield f"rubric at {rate:g} - rating, seed by seed: {show(compare(rows, first), '+')}"


def group_rows(split: str) -> dict[tuple[str, float], list[Row]]:
    """Return the rows of a split by reward and learning rate, those of the grid, in its order."""
    rows: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for which in list_runs(split):
        rows[which["reward"], which["learning_rate"]] += [
            row for row in read_rows("runs") if which.items() <= row.items()
        ]
    return rows


def describe_costs(rows: list[Row]) -> str:
    """Return mean FLOPs, those of the judge, and the number of its calls, as cells."""
    ledgers = [row["ledger"] for row in rows]
    flops = fmean(ledger["total_flops"] for ledger in ledgers)
    judged = fmean(ledger["flops"]["judge"] for ledger in ledgers)
    calls = fmean(ledger["feedback"]["judge_calls"] for ledger in ledgers)
    return f"{flops:.2e} | {judged:.2e} | {calls:.0f}".replace("e+", "e")


def compare(rows: list[Row], others: list[Row]) -> Estimate:
    """Return the mean difference of the scores of two methods at the same seed."""
    scores = {row["seed"]: row["after"]["score"]["mean"] for row in others}
    return mean_with_interval([row["after"]["score"]["mean"] - scores[row["seed"]] for row in rows])


def average(rows: list[Row], phase: str, measure: str) -> Estimate:
    """Return the mean of a measure over seeds."""
    return mean_with_interval([row[phase][measure]["mean"] for row in rows])


def show(found: Estimate, sign: str = "") -> str:
    """Return a mean with its interval, if it has one."""
    interval = f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]" if found.low is not None else ""
    return f"{found.mean:{sign}.3f}{interval}"


def main(
    split: str = "test", runs: str = "", seeds: str = "", only: str = "", *, table: bool = False
) -> None:
    """Run what has no row yet, or print the tables.

    With `seeds` or `only`, runs of these seeds or rewards alone; with `--split judge`, the judge.
    """
    if table:
        print("\n".join(format_tables()))
        return
    folder = Path(runs).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not read_rows("judge") or not (folder / "judge").exists():
        append_lines(RESULTS / "judge.jsonl", [train_judge(read_grid()["judge"], folder)])
    for which in list_runs(split) if split != "judge" else ():
        done = any(which.items() <= row.items() for row in read_rows("runs"))
        other_seed = seeds and str(which["seed"]) not in seeds.split(",")
        other_reward = only and which["reward"] not in only.split(",")
        if done or other_seed or other_reward:
            continue
        row = run_once(which, folder)
        append_lines(RESULTS / "runs.jsonl", [row])
        print(which, row["before"]["score"]["mean"], row["after"]["score"]["mean"], flush=True)


if __name__ == "__main__":
    typer.run(main)

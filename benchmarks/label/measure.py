"""Measure how many answers a reward model needs, by the way in which pairs are chosen.

    python benchmarks/label/measure.py

The gold score of a task answers in place of a person, for pairs that `alignzoo label` would show:
8 answers of the task's model to each training prompt, of which two are chosen at random or by
double Thompson sampling. The reward model is the mean of the ensemble's heads. It is tested on 8
answers to each of other prompts, those of `dev`. What is measured is kept in a file, for each task
and seed, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import t

from alignzoo import load_task
from alignzoo.data import read_task_rows
from alignzoo.files import write_json
from alignzoo.ui import Silent
from alignzoo_label.candidates import Candidates, read_prompts, task_columns
from alignzoo_label.choice import AtRandom, Choice, Undecided
from alignzoo_label.writer import Writer

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "label" / "label.json"
MODELS = {"style": "zoo-tiny", "constitution": "zoo-critic"}
WAYS = ("random", "undecided")
ANSWERS = (5, 10, 20, 40, 80, 160)
SEEDS = 15
SIZE = 8  # answers to each prompt
TESTED = 60  # prompts of dev


def draw(writer: Writer, task: Any, name: str, seed: int) -> tuple[list[Candidates], ...]:
    """Return prompts to be labelled and prompts to test on, each with answers and states."""
    train = read_prompts(None, name, Silent())
    rows = read_task_rows(task, "prompts", "dev")
    dev = [Candidates(row["prompt"], (), task_columns(row)) for row in rows]
    return tuple(
        [
            one
            for one in writer.draw(prompts, seed, count, SIZE, states=True)
            if len(one.completions) > 1
        ]
        for prompts, count in ((train, ANSWERS[-1] + 20), (dev, TESTED))
    )


def gold(task: Any, one: Candidates) -> list[float]:
    """Return the gold score of each completion."""
    return [task.score({"prompt": one.prompt, **one.columns}, text) for text in one.completions]


def label(way: str, task: Any, labelled: Sequence[Candidates], test: Any, seed: int) -> Any:
    """Answer one pair of each prompt; return how good the reward model is after some of them."""
    learner = Undecided(seed)
    choice: Choice = learner if way == "undecided" else AtRandom()
    rows: list[dict[str, Any]] = []
    results = []
    for number, one in enumerate(labelled[: ANSWERS[-1]], start=1):
        pair = choice.pick(one, 2, Random(f"{seed} {one.key}"))
        scores = dict(zip(one.completions, gold(task, one), strict=True))
        worse, better = sorted(pair, key=scores.__getitem__)
        if scores[worse] < scores[better]:  # a tie is an answer too, and teaches nothing
            rows.append({"item": one.key, "chosen": better, "rejected": worse})
        if way == "undecided" or number in ANSWERS:
            learner.fit(rows, labelled)
        if number in ANSWERS:
            results.append({"answers": number, "preferences": len(rows), **score(learner, test)})
    return results


def score(learner: Undecided, test: Sequence[tuple[Candidates, list[float]]]) -> dict[str, float]:
    """Return how often the reward model prefers what gold does, and the gold of its best answers.

    Both are means over prompts; the first one over all pairs of a prompt that gold tells apart.
    """
    agreements, best = [], []
    for one, golds in test:
        assert one.states is not None
        if learner.ensemble is None:  # every answer so far was a tie
            found = torch.zeros(len(golds))
        else:
            found = learner.ensemble.scores(one.states).mean(0)  # (K,)
        best.append(golds[int(found.argmax())])
        pairs = [
            float(found[i] > found[j])
            for i in range(len(golds))
            for j in range(len(golds))
            if golds[i] > golds[j]
        ]
        if pairs:
            agreements.append(fmean(pairs))
    return {"accuracy": fmean(agreements), "best": fmean(best)}


def measure(name: str, seed: int) -> dict[str, Any]:
    """Return what both ways give for a task and a seed."""
    task = load_task(name)
    writer = Writer(MODELS[name], temperature=None, max_new_tokens=None, trust_remote_code=False)
    labelled, dev = draw(writer, task, name, seed)
    test = [(one, gold(task, one)) for one in dev]
    found: dict[str, Any] = {way: label(way, task, labelled, test, seed) for way in WAYS}
    return found | {"any": fmean(fmean(golds) for _, golds in test)}


def table(results: dict[str, Any]) -> str:
    """Return the results as a table: means over seeds, and the difference with its interval."""
    lines = [
        "| task | answers | accuracy, random | undecided | difference | gold of the best, random | "
        "undecided | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in MODELS:
        seeds = [results[f"{name} {seed}"] for seed in range(SEEDS)]
        for i, answers in enumerate(ANSWERS):
            cells = [name, str(answers)]
            for measured in ("accuracy", "best"):
                values = {way: [one[way][i][measured] for one in seeds] for way in WAYS}
                cells += [f"{fmean(values[way]):.3f}" for way in WAYS]
                gaps = [b - a for a, b in zip(*values.values(), strict=True)]
                half = float(t.ppf(0.975, SEEDS - 1)) * stdev(gaps) / SEEDS**0.5
                cells.append(f"{fmean(gaps):+.3f} ± {half:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def answers_needed(curves: Sequence[Sequence[float]], accuracy: float) -> float:
    """Return after how many answers the mean of the curves reaches an accuracy; inf if never.

    Between two numbers of answers that were measured, it is linear in their logarithm.
    """
    means = [fmean(values) for values in zip(*curves, strict=True)]
    if means[0] >= accuracy:
        return ANSWERS[0]
    for i in range(1, len(ANSWERS)):
        if means[i] >= accuracy:
            part = (accuracy - means[i - 1]) / (means[i] - means[i - 1])
            return ANSWERS[i - 1] * (ANSWERS[i] / ANSWERS[i - 1]) ** part
    return math.inf


def table_of_answers(results: dict[str, Any]) -> str:
    """Return the answers that each way needs, with 95% intervals by a bootstrap over seeds."""
    lines = ["| task | accuracy | answers, random | undecided |", "|---|---|---|---|"]
    for name, accuracy in product(MODELS, (0.55, 0.6, 0.65)):
        cells = [name, f"{accuracy:.2f}"]
        for way in WAYS:
            seeds = [results[f"{name} {seed}"][way] for seed in range(SEEDS)]
            curves = [[point["accuracy"] for point in one] for one in seeds]
            random = Random(0)
            again = sorted(
                answers_needed(random.choices(curves, k=SEEDS), accuracy) for _ in range(2000)
            )
            shown = [answers_needed(curves, accuracy), again[50], again[-51]]
            found, low, high = (f"{n:.0f}" if n < math.inf else "> 160" for n in shown)
            cells.append(f"{found} [{low}, {high}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not measured yet, and print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for seed in range(SEEDS):
        for name in MODELS:
            if f"{name} {seed}" not in results:
                results[f"{name} {seed}"] = measure(name, seed)
                write_json(RESULT, results)
                print(name, seed, flush=True)
    print(table_of_answers(results))
    print(table(results))


if __name__ == "__main__":
    main()

"""Whether 2,312 human pairs teach a small model from random weights anything, by cross-validation.

    python benchmarks/hh_rlhf/study.py SCRATCH [--data FILE] [--folds 0 1 2 3 4] [--stages ...]
    python benchmarks/hh_rlhf/report.py SCRATCH

Writes a row per fold and judge into SCRATCH/rows.jsonl as it goes. What is there already is not
done again, and a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from dialogues import Pair, folds, read_pairs
from fold import write_fold
from judge import margins
from stages import COMMON, STAGES, Stage
from yardsticks import YARDSTICKS

from alignzoo.session import session

FOLDS = 5
SEED = 0
LAST = 5  # the last fifth of the steps
DATA = Path(__file__).parents[3] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--stages", nargs="*", default=[stage.name for stage in STAGES])
    args = parser.parse_args()
    parts = folds(read_pairs(args.data), FOLDS, SEED)
    for number in args.folds:
        test = parts[number]
        train = [pair for part in parts if part is not test for pair in part]
        study = Study(args.scratch, number, train, test)
        for stage in STAGES:
            if stage.name in args.stages:
                study.run(stage)
        study.judge_by_yardsticks()


class Study:
    """One fold: its files, its runs, and its rows of the result."""

    def __init__(self, scratch: Path, number: int, train: list[Pair], test: list[Pair]):
        self.number, self.train, self.test = number, train, test
        self.rows = scratch / "rows.jsonl"
        self.folder = scratch / f"fold-{number}"
        if not (self.folder / "model").exists():
            write_fold(self.folder, train)

    def judge_by_yardsticks(self) -> None:
        for name, judge in YARDSTICKS.items():
            if not self.has(name):
                ids = [pair["id"] for pair in self.test]
                found = judge(self.train, self.test)
                self.note(name, dict(zip(ids, found, strict=True)))

    def run(self, stage: Stage) -> None:
        """The run of a stage, unless it is done, and its row if it is to judge."""
        runs = self.folder / "runs"
        record = runs / stage.name / "run.json"
        status = json.loads(record.read_text())["status"] if record.exists() else None
        if status != "finished":
            started = time.monotonic()
            recipe = session.recipe_for(stage.algorithm, COMMON, self.settings(stage, runs))
            session.execute(recipe, resume=status is not None)
            print(
                f"fold {self.number}, {stage.name}: {time.monotonic() - started:.0f} s", flush=True
            )
        if stage.judges and not self.has(stage.name):
            found = margins(runs / stage.name, self.test, COMMON["max_length"])
            self.note(stage.name, found, training_accuracy(runs / stage.name))

    def settings(self, stage: Stage, runs: Path) -> dict[str, Any]:
        return {
            "model": str(runs / stage.start if stage.start else self.folder / "model"),
            "data": str(self.folder / stage.data),
            "output_dir": str(runs),
            "name": stage.name,
            **stage.settings,
        }

    def has(self, judge: str) -> bool:
        if not self.rows.exists():
            return False
        rows = map(json.loads, self.rows.read_text().splitlines())
        return any((row["fold"], row["judge"]) == (self.number, judge) for row in rows)

    def note(self, judge: str, margins: dict[int, float], training: float | None = None) -> None:
        """A row of the result. A pair without a margin counts as wrong, as a tie does."""
        ids = [pair["id"] for pair in self.test]
        right = [i for i in ids if margins.get(i, 0.0) > 0]
        row = {
            "fold": self.number,
            "judge": judge,
            "accuracy_training": training,
            "unjudged": len(ids) - len(margins),
            "right": right,
            "wrong": sorted({*ids} - {*right}),
        }
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"fold {self.number}, {judge}: {len(right)} of {len(ids)}", flush=True)


def training_accuracy(run: Path) -> float:
    """The share of pairs ordered rightly in the last steps, before each step learnt from them."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-len(rows) // LAST :]
    return sum(row["rewards/accuracies"] for row in last) / len(last)


if __name__ == "__main__":
    main()

"""Train a small model from random weights on 2,312 human pairs alone, and cross-validate it.

    python benchmarks/hh_rlhf/study.py SCRATCH [--data FILE] [--folds 0 1 2 3 4] [--stages ...]
    python benchmarks/hh_rlhf/report.py SCRATCH

Append a row per fold and judge to SCRATCH/rows.jsonl. Folds and judges that have a row are not
repeated, and an interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from dialogues import Pair, read_pairs, split_folds
from fold import write_fold
from judge import measure_margins
from stages import COMMON, STAGES, Stage
from yardsticks import YARDSTICKS

from alignzoo.session import session

FOLDS = 5
SEED = 0
LAST = 5  # one part in so many of the steps, the last ones, counts for the training accuracy
DATA = Path(__file__).parents[3] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"


def main() -> None:
    """Run the stages of each fold and judge its held-out pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--stages", nargs="*", default=[stage.name for stage in STAGES])
    args = parser.parse_args()
    parts = split_folds(read_pairs(args.data), FOLDS, SEED)
    for number in args.folds:
        test = parts[number]
        train = [pair for part in parts if part is not test for pair in part]
        study = Study(args.scratch, number, train, test)
        for stage in STAGES:
            if stage.name in args.stages:
                study.run_stage(stage)
        study.judge_by_yardsticks()


class Study:
    """One fold: its files, its runs and its rows."""

    def __init__(self, scratch: Path, number: int, train: list[Pair], test: list[Pair]):
        self.number, self.train, self.test = number, train, test
        self.rows = scratch / "rows.jsonl"
        self.folder = scratch / f"fold-{number}"
        if not (self.folder / "model").exists():
            write_fold(self.folder, train)

    def judge_by_yardsticks(self) -> None:
        """Add the rows of the judges without a network."""
        for name, judge in YARDSTICKS.items():
            if not self.has_row(name):
                ids = [pair["id"] for pair in self.test]
                found = judge(self.train, self.test)
                self.add_row(name, dict(zip(ids, found, strict=True)))

    def run_stage(self, stage: Stage) -> None:
        """Run a stage unless it has finished, and add its row if it judges."""
        runs = self.folder / "runs"
        record = runs / stage.name / "run.json"
        status = json.loads(record.read_text())["status"] if record.exists() else None
        if status != "finished":
            started = time.monotonic()
            recipe = session.recipe_for(stage.algorithm, COMMON, self.settings_for(stage, runs))
            session.execute(recipe, resume=status is not None)
            print(
                f"fold {self.number}, {stage.name}: {time.monotonic() - started:.0f} s", flush=True
            )
        if stage.judges and not self.has_row(stage.name):
            found = measure_margins(runs / stage.name, self.test, COMMON["max_length"])
            self.add_row(stage.name, found, training_accuracy(runs / stage.name))

    def settings_for(self, stage: Stage, runs: Path) -> dict[str, Any]:
        """Return the recipe of a stage, without the common settings."""
        return {
            "model": str(runs / stage.start if stage.start else self.folder / "model"),
            "data": str(self.folder / stage.data),
            "output_dir": str(runs),
            "name": stage.name,
            **stage.settings,
        }

    def has_row(self, judge: str) -> bool:
        """Return True if this fold has a row of a judge."""
        if not self.rows.exists():
            return False
        rows = map(json.loads, self.rows.read_text().splitlines())
        return any((row["fold"], row["judge"]) == (self.number, judge) for row in rows)

    def add_row(self, judge: str, margins: dict[int, float], training: float | None = None) -> None:
        """Append a row of the result. A pair without a margin counts as wrong, as a tie does."""
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
    """Return the accuracy on the training pairs of the last steps, each before its update."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-len(rows) // LAST :]
    return sum(row["rewards/accuracies"] for row in last) / len(last)


if __name__ == "__main__":
    main()

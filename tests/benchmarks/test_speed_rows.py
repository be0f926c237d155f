"""The rows of the comparison with TRL: the same batches on both sides, mismatched ones too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import Example
from alignzoo.data import EpochOrder
from alignzoo_zoo.kto.losses import mismatch

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
SIZE, COUNT = 4, 12


@pytest.fixture
def read(tmp_path, monkeypatch):
    """`read("kto") -> (ours in the order in which they are used, theirs)`, each in batches."""
    monkeypatch.syspath_prepend(SPEED)
    from rows import SEED, make_rows

    def batches(algorithm):
        files = make_rows(tmp_path, algorithm, COUNT, SIZE, vocabulary=100)
        ours, theirs = (
            [json.loads(line) for line in files[side].read_text().splitlines()]
            for side in ("ours", "theirs")
        )
        order = EpochOrder(COUNT, SIZE, SEED)
        steps = range(COUNT // SIZE)
        return (
            [[ours[i] for i in order.batch(step)] for step in steps],
            [theirs[step * SIZE : (step + 1) * SIZE] for step in steps],
        )

    return batches


@pytest.mark.parametrize("algorithm", ["dpo", "grpo", "reward", "sft"])
def test_a_step_has_the_same_rows_in_the_same_order(read, algorithm):
    ours, theirs = read(algorithm)
    assert ours == theirs
    assert ours[0] != ours[1]


def test_kto_mismatches_the_same_prompts_and_completions(read):
    for ours, theirs in zip(*read("kto"), strict=True):
        examples = [Example([row["prompt"]], [[row["completion"]]]) for row in ours]
        here = {(e.prompt[0], e.completions[0][0]) for e in mismatch(examples, 2)}
        # TRL's KTOTrainer rotates the completions of a batch by one.
        completions = [theirs[-1]["completion"]] + [row["completion"] for row in theirs[:-1]]
        there = {(row["prompt"], c) for row, c in zip(theirs, completions, strict=True)}
        assert here == there
        assert len(here) == SIZE
        assert sorted(map(str, ours)) == sorted(map(str, theirs))


def test_kto_has_both_labels_in_equal_number(read):
    ours, _ = read("kto")
    labels = [row["label"] for batch in ours for row in batch]
    assert sum(labels) == COUNT // 2

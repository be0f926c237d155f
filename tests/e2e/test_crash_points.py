"""A run that is killed at any of its file operations leaves, resumed, what it leaves otherwise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crashes import differences, resume, run_until

SHARED = ["--task", "sums", "--eval-size", "2", "--max-new-tokens", "6"]
TRAINING = ["--steps", "4", "--batch-size", "2", "--checkpoint-every", "1", "--eval-every", "2"]
RUNS = {
    "sft": [*SHARED, *TRAINING],
    "best-of-n": [*SHARED, "--n", "2"],
    "ppo": [*SHARED, *TRAINING],
    "rlaif": [*SHARED, *TRAINING],
    "constitutional": [*SHARED, *TRAINING],
}
SAMPLE = 8  # operations of a run


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["sft", "best-of-n"])
def test_a_run_is_killed_at_some_of_its_file_operations(tmp_path: Path, algorithm):
    count = crash(tmp_path, algorithm, RUNS[algorithm], SAMPLE)
    assert count >= SAMPLE


def crash(folder: Path, algorithm: str, words: list[str], sample: int | None) -> int:
    """Kill runs at a sample of the operations, or at all, and return how many there are."""

    def command(name: str) -> list[str]:
        return ["run", algorithm, *words, "--output-dir", str(folder), "--name", name]

    assert run_until(command("straight"), None, folder / "count") == 0
    count = int((folder / "count").read_text())
    operations = list(range(1, count + 1))
    if sample is not None:
        operations = sorted(random.Random(algorithm).sample(operations, min(sample, count)))
    for operation in operations:
        name = f"killed-{operation}"
        assert run_until(command(name), operation) == -9
        resume(command(name))
        assert differences(folder / name, folder / "straight") == [], operation
    return count

"""Processes that run cells on this machine, and how they share its GPUs."""

import subprocess
import sys

import pytest

from alignzoo_compare import workers

# Prints whether the process from which workers are forked has loaded torch.
FORK = """
import os, sys
from pathlib import Path
from alignzoo_compare.workers import LocalWorkers

def look():
    return "libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text()

if __name__ == "__main__":
    pool = LocalWorkers(1, Path(sys.argv[1]), gpus=1).pool
    print(pool.submit(look, None).result())
    pool.stop()
    pool.join()
"""


@pytest.fixture
def claimed(monkeypatch):
    monkeypatch.setattr(workers, "_claimed", [])
    yield workers._claimed
    for lock in workers._claimed:
        lock.release()


def test_workers_are_spread_evenly_over_gpus(tmp_path, claimed):
    assert [workers.claim_gpu(tmp_path, 2) for _ in range(5)] == [0, 1, 0, 1, 0]


def test_the_gpu_of_a_worker_that_died_is_claimed_first(tmp_path, claimed):
    assert [workers.claim_gpu(tmp_path, 3) for _ in range(4)] == [0, 1, 2, 0]
    claimed[1].release()
    assert workers.claim_gpu(tmp_path, 3) == 1


def test_workers_with_a_gpu_are_not_forked_from_what_may_have_started_cuda(tmp_path):
    """CUDA that was started before a fork cannot be used after it; bitsandbytes starts it."""
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    words = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr

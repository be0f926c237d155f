"""The glossary defines every metric that a run logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alignzoo.evaluation import evaluate_run
from alignzoo.training.loop import train

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
CELLS = [line.split(" | ")[0] for line in GLOSSARY.splitlines() if line.startswith("| `")]
NAMES = [name for cell in CELLS for name in re.findall(r"`([^`]+)`", cell)]
PATTERNS = [re.compile(re.escape(name).replace("NAME", ".+")) for name in NAMES]
RUNS = {
    "sft": {},
    "dpo": {},
    "kto": {"batch_size": 2},
    "grpo": {
        "task": "sums",
        "options": {"group_size": 2, "beta": 0.1, "dynamic_sampling": 1, "loss_type": "kl_cov"},
    },
    "reinforce": {"task": "sums", "options": {"group_size": 2, "baseline": "greedy"}},
    "ppo": {"task": "sums", "options": {"beta": 0.1}},
    "online-dpo": {"task": "sums"},
}


def is_defined(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in PATTERNS)


def test_a_metric_is_defined_once():
    defined = [name for name in NAMES if name not in ("reward", "kl")]  # of steps, of evaluations
    assert sorted(set(defined)) == sorted(defined)


@pytest.mark.parametrize("algorithm", list(RUNS))
def test_every_metric_that_a_run_logs_is_defined(make_run, algorithm):
    settings = {"steps": 1, "batch_size": 2, "max_new_tokens": 8, "eval_size": 2}
    run = make_run(algorithm, **{**settings, **RUNS[algorithm]})
    train(run)
    lines = (run.record.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    results = set(evaluate_run(run, "after").summary)
    assert {"loss", "score"} <= logged | results
    assert [name for name in sorted(logged | results) if not is_defined(name)] == []

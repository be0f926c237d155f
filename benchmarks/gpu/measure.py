"""Compare alignzoo with TRL on a GPU: `python benchmarks/gpu/measure.py --out FILE`; see run.sh.

Models of two shapes with random weights, the same rows, the same LoRA adapter, bf16. The jobs of
one library and one shape run one after the other in one process, the libraries one after the other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import torch
from card import card_name

HERE = Path(__file__).resolve().parent
SPEED = HERE.parent / "speed"
sys.path.insert(0, str(SPEED))

from model import make_model  # noqa: E402
from rows import make_rows  # noqa: E402

VOCABULARY = 151_936
SHAPES = {
    "0.6B": {"layers": 28, "hidden_size": 1024, "intermediate_size": 3072},
    "1.7B": {"layers": 28, "hidden_size": 2048, "intermediate_size": 6144},
}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
PROMPT, COMPLETION = (128, 512), (64, 256)  # tokens; prompts of grpo have 512
DRAWN = 128  # tokens of each of grpo's 8 completions of a prompt
JOBS = {"sft": {"batch_size": 32, "steps": 10}, "dpo": {"batch_size": 16, "steps": 10},
        "grpo": {"batch_size": 8, "steps": 4}}  # fmt: skip
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "triton")


def flags_of(side: str, algorithm: str) -> dict[str, Any]:
    """Return the settings of a library that differ from the comparison on a CPU."""
    drawn = algorithm == "grpo"
    if side == "ours":
        options = {"options": {"group_size": 8}, "max_new_tokens": DRAWN} if drawn else {}
        return {"precision": "bf16", **options}
    flags = {
        "use_cpu": False,
        "bf16": True,
        "model_init_kwargs": {"dtype": "bfloat16"},
    }
    return flags | ({"max_completion_length": DRAWN} if drawn else {})


def run_side(side: str, shape: str, algorithms: list[str], folder: Path) -> dict[str, Any]:
    """Run the jobs of one library on one shape; return the measurements by algorithm."""
    jobs = []
    for algorithm in algorithms:
        size = JOBS[algorithm]
        count = size["steps"] * size["batch_size"]
        rows = make_rows(
            folder,
            algorithm,
            count,
            size["batch_size"],
            VOCABULARY,
            prompt=None if algorithm == "grpo" else PROMPT,
            completion=COMPLETION,
        )
        scratch = folder / f"{shape}-{algorithm}-{side}"
        scratch.mkdir()
        jobs.append(
            {
                "algorithm": algorithm,
                "model": str(folder / shape),
                "rows": {name: str(path) for name, path in rows.items()},
                **size,
                "learning_rate": 1e-5,
                "threads": os.cpu_count(),
                "flags": flags_of(side, algorithm),
                "check": True,
                "folder": str(scratch),
                "result": str(scratch / "result.json"),
            }
        )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(SPEED / f"{side}.py"), json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")},
    )
    if done.returncode:
        print(f"{side} {shape}: {done.stderr[-3000:]}", file=sys.stderr, flush=True)
    found = {}
    for job in jobs:
        result = Path(job["result"])
        found[job["algorithm"]] = (
            json.loads(result.read_text())
            if result.exists()
            else {"failed": (done.stderr or done.stdout).strip().splitlines()[-1:]}
        )
    print(f"{side} {shape}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return found


def measure_products(size: int = 8192, repeats: int = 20) -> float:
    """Return the rate of bf16 matrix products in FLOP per second, the median of `repeats`."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * size**3 / sorted(times[3:])[repeats // 2]


def summarise(ours: dict[str, Any], theirs: dict[str, Any], peak: float) -> dict[str, Any]:
    """Return rows per second, peak MiB, share of the peak, and the ratio to TRL, of one cell."""
    found: dict[str, Any] = {}
    for name, side in (("alignzoo", ours), ("TRL", theirs)):
        found[name] = {
            key: side[key] for key in ("rows_per_second", "step_seconds", "gpu_peak") if key in side
        } or side
    if "step_seconds" in ours:
        rate = ours["flops_per_step"] / ours["step_seconds"]
        found["alignzoo"]["share_of_products"] = rate / peak
    if "step_seconds" in ours and "step_seconds" in theirs:
        found["times_as_fast"] = ours["rows_per_second"] / theirs["rows_per_second"]
        found["times_the_memory"] = theirs["gpu_peak"] / ours["gpu_peak"]
        found["first_losses"] = ours["losses"][0], theirs["losses"][0]
    return found


def read_tests(path: Path) -> dict[str, Any]:
    """Return how many tests passed, and which failed."""
    suite = ET.parse(path).getroot().find("testsuite")
    assert suite is not None
    failed = [c.get("name") for c in suite if c.find("failure") is not None or c.find("error")]
    skipped = sum(c.find("skipped") is not None for c in suite)
    passed = len(suite.findall("testcase")) - len(failed) - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


def main() -> None:
    """Measure, print a table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tests", type=Path, help="the JUnit file of the tests")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--algorithms", nargs="+", choices=JOBS, default=list(JOBS))
    args = parser.parse_args()
    peak = measure_products()
    report: dict[str, Any] = {
        "card": card_name(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "products_flops_per_second": peak,
        "tests": read_tests(args.tests) if args.tests and args.tests.exists() else None,
        "cells": {},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="alignzoo-gpu-") as scratch:
        folder = Path(scratch)
        for shape in args.shapes:
            sizes = SHAPES[shape] | HEADS
            make_model(folder / shape, VOCABULARY, dtype=torch.bfloat16, **sizes)
            sides = [run_side(side, shape, args.algorithms, folder) for side in ("ours", "theirs")]
            for algorithm in args.algorithms:
                cell = summarise(*(side[algorithm] for side in sides), peak)
                report["cells"][f"{algorithm} {shape}"] = cell
                print(f"{algorithm} {shape}: {json.dumps(cell)}", flush=True)
            args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

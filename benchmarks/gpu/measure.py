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
JOBS = {"sft": {"batch_size": 32, "steps": 8}, "dpo": {"batch_size": 16, "steps": 8},
        "grpo": {"batch_size": 8, "steps": 4}}  # fmt: skip
MICRO_TOKENS = 32_768  # TRL, too, takes a step in one pass; lowered where it does not fit
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "triton")


def flags_of(side: str, algorithm: str) -> dict[str, Any]:
    """Return the settings of a library that differ from the comparison on a CPU."""
    drawn = algorithm == "grpo"
    if side == "ours":
        options = {"options": {"group_size": 8}, "max_new_tokens": DRAWN} if drawn else {}
        return {"precision": "bf16", "micro_tokens": MICRO_TOKENS, **options}
    flags = {
        "use_cpu": False,
        "bf16": True,
        "model_init_kwargs": {"dtype": "bfloat16"},
    }
    return flags | ({"max_completion_length": DRAWN} if drawn else {})


def make_jobs(side: str, shape: str, algorithms: list[str], folder: Path) -> list[dict[str, Any]]:
    """Write the rows of the jobs of one library on one shape, and return the jobs."""
    jobs = []
    for algorithm in algorithms:
        size = JOBS[algorithm]
        rows = make_rows(
            folder,
            algorithm,
            size["steps"] * size["batch_size"],
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
    return jobs


def run_side(
    side: str, shape: str, algorithms: list[str], folder: Path, limit: float
) -> dict[str, Any]:
    """Run the jobs of one library on one shape; return the measurements by algorithm.

    Those that are not done after `limit` seconds are left out.
    """
    jobs = make_jobs(side, shape, algorithms, folder)
    started = time.monotonic()
    words = [sys.executable, str(SPEED / f"{side}.py"), json.dumps(jobs)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")}
    why = f"not done after {limit:.0f} s"
    with (folder / f"{shape}-{side}.log").open("w+") as log:
        try:
            code = subprocess.run(
                words, stdout=log, stderr=log, check=False, env=environment, timeout=limit
            ).returncode
        except subprocess.TimeoutExpired:
            code = 1
        else:
            log.seek(0)
            why = (log.read().strip() or "no output").splitlines()[-1]
        if code:
            print(f"{side} {shape}: {why}", file=sys.stderr, flush=True)
    print(f"{side} {shape}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return {
        job["algorithm"]: json.loads(Path(job["result"]).read_text())
        if Path(job["result"]).exists()
        else {"failed": why}
        for job in jobs
    }


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


def summarise(sides: list[dict[str, Any]], peak: float) -> dict[str, Any]:
    """Return rows per second, peak MiB and share of `peak` of one cell, and the ratios to TRL."""
    kept = ("rows_per_second", "step_seconds", "gpu_peak", "failed")
    found: dict[str, Any] = {
        name: {key: side[key] for key in kept if key in side}
        for name, side in zip(("alignzoo", "TRL"), sides, strict=False)
    }
    ours, *others = sides
    if "failed" in ours:
        return found
    rate = ours["flops_per_step"] / ours["step_seconds"]
    found["alignzoo"]["share_of_products"] = rate / peak
    for trl in (side for side in others if "failed" not in side):
        found["times_as_fast"] = ours["rows_per_second"] / trl["rows_per_second"]
        found["times_the_memory"] = trl["gpu_peak"] / ours["gpu_peak"]
        found["first_losses"] = [ours["losses"][0], trl["losses"][0]]
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
    parser.add_argument("--without-trl", action="store_true", help="measure alignzoo alone")
    parser.add_argument("--limit", type=float, default=110, help="seconds of each process")
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
            names = ("ours",) if args.without_trl else ("ours", "theirs")
            sides = [run_side(x, shape, args.algorithms, folder, args.limit) for x in names]
            for algorithm in args.algorithms:
                cell = summarise([side[algorithm] for side in sides], peak)
                report["cells"][f"{algorithm} {shape}"] = cell
                print(f"{algorithm} {shape}: {json.dumps(cell)}", flush=True)
            args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

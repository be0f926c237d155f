"""Compare `alignzoo estimate` with the measured peak of runs: `python measure.py [NAME ...]`.

Each setting is estimated in one process and run in another, on a CPU with one thread, for two
steps. The measured number is the rise of resident memory: its peak (`VmHWM`) during the run, less
what is resident when all libraries are imported and a small model has been loaded once. The same
is taken from the estimate. Results go to `benchmarks/results/memory/estimates.json`, and the table
to the README beside this file.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from settings import MODELS, SETTINGS, Setting, make_model

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "memory" / "estimates.json"
TABLE = "<!-- table -->"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # what a run sets itself when memory is short
WORDS = "the time of a person year way day thing man world life hand part child eye woman".split()
ROWS = 24


def resident(key: str = "VmRSS") -> int:
    """Return a line of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def write_rows(path: Path, words: int, pairs: bool) -> None:
    """Write pairs or demonstrations, whose prompts serve as well, of about so many tokens each."""
    draw = random.Random(0)

    def text(n: int) -> str:
        return " ".join(draw.choices(WORDS, k=n))

    with path.open("w") as file:
        for _ in range(ROWS):
            part = words // 3 if pairs else words // 2
            row = {"prompt": text(part)}
            row |= {n: text(part) for n in (("chosen", "rejected") if pairs else ("completion",))}
            file.write(json.dumps(row) + "\n")


def recipe_of(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the settings of a run, with the paths of its model and its data."""
    data = folder / "rows.jsonl"
    write_rows(data, setting.words, setting.algorithm in ("dpo", "reward"))
    return {
        "model": str(make_model(setting.model)),
        "data": str(data),
        "steps": 2,
        "batch_size": 2,
        "eval_size": 0,
        "checkpoint_every": 0,
        "output_dir": str(folder / "runs"),
        **setting.recipe,
    }


def child(kind: str, name: str) -> None:
    """Estimate or run one setting in this process, and print the result as JSON."""
    from alignzoo.policy import load_policy
    from alignzoo.session import execute, recipe_for
    from alignzoo.session.estimate import estimate_run

    setting = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(setting.algorithm, recipe_of(setting, Path(folder)))
        started = time.process_time()
        if kind == "estimate":
            found = estimate_run(recipe)
            answer = {**found.as_dict(), "rise": found.peak - found.base}
        else:
            load_policy("zoo-tiny")
            gc.collect()
            base = resident()
            Path("/proc/self/clear_refs").write_text("5")
            execute(recipe)
            answer = {"base": base, "rise": resident("VmHWM") - base}
        answer["cpu_seconds"] = time.process_time() - started
    print(json.dumps(answer))


def in_a_process(kind: str, name: str, environment: dict[str, str]) -> dict[str, Any]:
    """Return what `child` prints in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(names: list[str]) -> dict[str, Any]:
    """Measure settings, keeping those measured before, and write the results after each."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        setting = SETTINGS[name]
        estimate = in_a_process("estimate", name, {})
        found[name] = {
            "estimated": estimate["rise"],
            "phase": max(estimate["phases"], key=estimate["phases"].get),
            "parts": estimate["parts"],
            "tokens": estimate["tokens"],
            "estimate_cpu_seconds": estimate["cpu_seconds"],
            "returned": in_a_process("run", name, RETURNED),
            "kept": in_a_process("run", name, {}) if setting.default_too else None,
        }
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        print(row_of(name, found[name]), flush=True)
    return found


def row_of(name: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    setting = SETTINGS[name]
    estimated, measured = found["estimated"], found["returned"]["rise"]
    kept = f"{found['kept']['rise'] / estimated:.2f}x" if found["kept"] else ""
    cells = [
        name,
        MODELS[setting.model],
        f"{found['tokens']:,}",
        found["phase"],
        f"{estimated / 1e6:,.0f}",
        f"{measured / 1e6:,.0f}",
        f"{estimated / measured - 1:+.1%}",
        kept,
    ]
    return f"| {' | '.join(cells)} |"


def write_table(found: dict[str, Any]) -> None:
    """Replace the table of the README."""
    readme = HERE / "README.md"
    rows = [row_of(name, found[name]) for name in SETTINGS if name in found]
    head = "| setting | model | tokens | peak in | estimated MB | measured MB | error | kept |"
    table = "\n".join([head, "|---|---|---:|---|---:|---:|---:|---:|", *rows])
    before, _, rest = readme.read_text().partition(TABLE)
    after = rest.partition(TABLE)[2]
    readme.write_text(f"{before}{TABLE}\n{table}\n{TABLE}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="settings to measure again (default: all)")
    parser.add_argument("--child", choices=("estimate", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="only write the table again")
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.names[0])
    elif asked.table:
        write_table(json.loads(RESULTS.read_text()))
    else:
        write_table(measure(asked.names or list(SETTINGS)))


if __name__ == "__main__":
    main()

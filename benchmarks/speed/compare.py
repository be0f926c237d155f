"""alignzoo beside TRL on one machine: `python benchmarks/speed/compare.py [--quick]`.

Every measurement is a fresh process, and the processes of the variants alternate, so that a slow
minute of the machine falls on all of them. First both libraries take the same two steps from the
same weights on the same rows; if their losses or gradient norms differ, nothing is measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meter import busy_seconds
from model import make_model
from rows import make_rows

import alignzoo
from alignzoo.record import hash_sources

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "speed"
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-3
SPARE = 0.25  # of the cores that a process needs, others may have so much


@dataclass(frozen=True)
class Variant:
    """One way of running one library.

    `same_batches`: a step has the rows that ours has; `same_loss`: and so the same loss.
    """

    name: str
    side: str
    flags: dict[str, Any] = field(default_factory=dict)
    same_batches: bool = True
    same_loss: bool = True


OURS = Variant("alignzoo", "ours")
LARGER = Variant("alignzoo, micro_tokens 8192", "ours", {"micro_tokens": 8192})
DEFAULT = Variant("TRL, defaults", "theirs")
ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
# KTOTrainer estimates a KL for each micro-batch from its own rows, and refuses one row alone.
TWO_BY_TWO = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
# Micro-batches of one group; 64 completions are drawn at once all the same.
EIGHT_BY_EIGHT = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8}
PRECOMPUTE = {"precompute_ref_log_probs": True}
BY_LENGTH = {"train_sampling_strategy": "group_by_length"}
# Trainers of pairs drop the column of lengths as unused, and their sampler then finds none.
KEEP_LENGTH = {"length_column_name": "length", "remove_unused_columns": False}
# What the installed source offers for speed or memory on a CPU; README.md says what came of each.
TRIED = {
    "dpo": [
        DEFAULT,
        Variant("TRL, 8 micro-batches of 1", "theirs", ONE_BY_ONE),
        Variant("TRL, reference first", "theirs", PRECOMPUTE),
        Variant("TRL, by length", "theirs", BY_LENGTH | KEEP_LENGTH, same_batches=False),
        Variant("TRL, 1 loader process", "theirs", {"dataloader_num_workers": 1}),
        Variant("TRL, best flags", "theirs", PRECOMPUTE | ONE_BY_ONE),
        Variant("TRL, best flags, patched", "theirs", PRECOMPUTE | ONE_BY_ONE | {"patched": True}),
        Variant("TRL, defaults, patched", "theirs", {"patched": True}),
        OURS,
        LARGER,
    ],
    "sft": [
        DEFAULT,
        Variant("TRL, 8 micro-batches of 1", "theirs", ONE_BY_ONE),
        Variant("TRL, by length", "theirs", BY_LENGTH, same_batches=False),
        Variant("TRL, padding-free", "theirs", {"padding_free": True, "max_length": None}),
        Variant(
            "TRL, packing",
            "theirs",
            {"packing": True, "per_device_train_batch_size": 3},
            same_batches=False,
        ),
        Variant("TRL, 1 loader process", "theirs", {"dataloader_num_workers": 1}),
        Variant("TRL, best flags", "theirs", ONE_BY_ONE),
        Variant("TRL, best flags, patched", "theirs", ONE_BY_ONE | {"patched": True}),
        Variant("TRL, defaults, patched", "theirs", {"patched": True}),
        OURS,
        LARGER,
    ],
    "kto": [
        DEFAULT,
        Variant("TRL, 4 micro-batches of 2", "theirs", TWO_BY_TWO, same_loss=False),
        Variant("TRL, reference first", "theirs", PRECOMPUTE),
        Variant("TRL, 1 loader process", "theirs", {"dataloader_num_workers": 1}),
        Variant("TRL, best flags", "theirs", PRECOMPUTE | TWO_BY_TWO, same_loss=False),
        Variant(
            "TRL, best flags, patched",
            "theirs",
            PRECOMPUTE | TWO_BY_TWO | {"patched": True},
            same_loss=False,
        ),
        Variant("TRL, defaults, patched", "theirs", {"patched": True}),
        OURS,
        LARGER,
    ],
    "reward": [
        DEFAULT,
        Variant("TRL, 8 micro-batches of 1", "theirs", ONE_BY_ONE),
        Variant("TRL, by length", "theirs", BY_LENGTH | KEEP_LENGTH, same_batches=False),
        Variant("TRL, 1 loader process", "theirs", {"dataloader_num_workers": 1}),
        Variant("TRL, best flags", "theirs", ONE_BY_ONE),
        OURS,
        LARGER,
    ],
    "grpo": [
        DEFAULT,
        Variant("TRL, best flags", "theirs", EIGHT_BY_EIGHT),
        OURS,
        LARGER,
    ],
}
# Each library draws its own completions, so that their losses are those of other data.
DRAWN = ("grpo",)
TABLE = (
    "TRL, defaults",
    "TRL, best flags",
    "TRL, best flags, patched",
    "alignzoo",
    "alignzoo, micro_tokens 8192",
)


@dataclass(frozen=True)
class Setting:
    """How large the comparison is."""

    vocabularies: tuple[int, ...]
    steps: int
    rounds: int
    layers: int
    threads: int = 2
    batch_size: int = 8
    learning_rate: float = 1e-4
    patience: float = 60.0  # seconds to wait before each process for other work to pass


FULL = Setting(vocabularies=(8_192, 50_257), steps=8, rounds=3, layers=4)
SMOKE = Setting(vocabularies=(1_024,), steps=4, rounds=1, layers=1)


class Differ(SystemExit):
    """The two libraries do not compute the same thing, so their speeds mean nothing."""


@dataclass
class Bench:
    """Models and rows in a folder, and one process after the other on them."""

    folder: Path
    setting: Setting
    processes: list[dict[str, Any]] = field(default_factory=list)

    def prepare(self) -> None:
        for vocabulary in self.setting.vocabularies:
            make_model(self.folder / f"model-{vocabulary}", vocabulary, self.setting.layers)

    def run(
        self, algorithm: str, vocabulary: int, variant: Variant, steps: int, check: bool = False
    ) -> dict[str, Any]:
        """One process; gives what its meter found."""
        setting = self.setting
        rows = make_rows(
            self.folder, algorithm, steps * setting.batch_size, setting.batch_size, vocabulary
        )
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            result = Path(scratch) / "result.json"
            job = {
                "algorithm": algorithm,
                "model": str(self.folder / f"model-{vocabulary}"),
                "rows": {name: str(path) for name, path in rows.items()},
                "steps": steps,
                "batch_size": setting.batch_size,
                "learning_rate": setting.learning_rate,
                "threads": setting.threads,
                "flags": variant.flags,
                "check": check,
                "folder": scratch,
                "result": str(result),
            }
            # A cache of its own, or a second process would find the first one's reference.
            caches = {"HF_DATASETS_CACHE": f"{scratch}/cache"}
            others = wait_for_quiet(setting.threads, setting.patience)
            call([str(HERE / f"{variant.side}.py"), json.dumps(job)], setting.threads, caches)
            found = json.loads(result.read_text())
        if not variant.same_batches:
            # Sorted batches begin with the longest, which must not be left out of the count.
            found["rows_per_second"] = steps * setting.batch_size / found["all_seconds"]
        if variant.flags.get("packing"):
            # A step takes so many packed blocks; rows are counted by what a block holds.
            per_step = variant.flags["per_device_train_batch_size"]
            rows_per_block = steps * setting.batch_size / found["blocks"]
            found["rows_per_second"] *= per_step * rows_per_block / setting.batch_size
        with_reference = found.get("precompute_seconds", 0.0) / (steps * setting.batch_size)
        if "rows_per_second" in found:
            found["rows_per_second_all"] = 1 / (1 / found["rows_per_second"] + with_reference)
        loadavg = Path("/proc/loadavg").read_text().split()[:3]
        return found | {"others_before": others, "loadavg": [float(x) for x in loadavg]}

    def check(self, algorithm: str, vocabulary: int) -> dict[str, float]:
        """The first two losses and gradient norms of both libraries; raises if they differ."""
        steps = 1 if algorithm in DRAWN else 2
        ours = self.run(algorithm, vocabulary, OURS, steps=steps, check=True)
        found = {"loss": ours["losses"][0], "grad_norm": ours["norms"][0]}
        theirs = self.run(algorithm, vocabulary, DEFAULT, steps=steps, check=True)
        if (ours["trainable"], ours["trained_sum"]) != (theirs["trainable"], theirs["trained_sum"]):
            raise Differ(f"the weights differ: {ours['trainable']} and {theirs['trainable']}")
        if algorithm in DRAWN:
            return {}
        for name, key, tolerance in (
            ("loss", "losses", LOSS_TOLERANCE),
            ("grad_norm", "norms", NORM_TOLERANCE),
        ):
            error = max(abs(a - b) / abs(b) for a, b in zip(ours[key], theirs[key], strict=True))
            found[f"{name}_error"] = error
            if error > tolerance:
                raise Differ(f"{algorithm}: {name} {ours[key]} here, {theirs[key]} in TRL")
        return found

    def measure(self, algorithm: str, vocabulary: int, variants: list[Variant]) -> None:
        """All variants, in turn, as often as there are rounds."""
        for number in range(self.setting.rounds):
            for variant in variants:
                found = self.run(algorithm, vocabulary, variant, self.setting.steps)
                key = {"algorithm": algorithm, "vocabulary": vocabulary, "variant": variant.name}
                if variant.same_batches and variant.same_loss and algorithm not in DRAWN:
                    self.compare_first(key, found)
                self.processes.append({**key, "round": number, **found})
                say(
                    f"{algorithm} {vocabulary} {variant.name}: {found['rows_per_second']:.2f} "
                    f"rows/s on {found['own_cores']:.2f} cores, {found['memory_rise']:.0f} MiB, "
                    f"others {found['other_cores']:.2f} cores"
                )

    def compare_first(self, key: dict[str, Any], found: dict[str, Any]) -> None:
        """Every process must begin with the loss that the first one of its kind began with."""
        same = [
            p
            for p in self.processes
            if (p["algorithm"], p["vocabulary"]) == (key["algorithm"], key["vocabulary"])
            and p["losses"]
        ]
        if same and found["losses"]:
            a, b = found["losses"][0], same[0]["losses"][0]
            if abs(a - b) > LOSS_TOLERANCE * abs(b):
                raise Differ(f"{key}: first loss {a}, but {b} in {same[0]['variant']}")


def left_alone(others: float, threads: int) -> bool:
    """Whether others, who use so many cores, leave a core to each of our threads."""
    return others < (os.cpu_count() or 1) - threads + SPARE


def wait_for_quiet(threads: int, patience: float) -> float:
    """Cores that others use; waits so many seconds for them to leave enough."""
    end = time.monotonic() + patience
    while True:
        before, started = busy_seconds(), time.monotonic()
        time.sleep(2.0)
        others = (busy_seconds() - before) / (time.monotonic() - started)
        if left_alone(others, threads) or time.monotonic() > end:
            return others


def call(arguments: list[str], threads: int, more: dict[str, str] | None = None) -> str:
    """A fresh Python with so many threads and no network; its output, or its error."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **(more or {}),
    }
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def summary(processes: list[dict[str, Any]], threads: int) -> dict[str, float]:
    """Medians over the processes of one variant; speed over the quiet ones if there are any."""
    quiet = [p for p in processes if left_alone(p["other_cores"], threads)] or processes
    keys = ("rows_per_second", "rows_per_second_all", "step_seconds", "own_cores", "flops_per_step")
    found = {key: statistics.median(p[key] for p in quiet) for key in keys}
    # Another process on the same core adds to the time, and nothing to the work.
    found["rows_per_core_second"] = statistics.median(
        p["rows_per_second_all"] / p["own_cores"] for p in processes
    )
    for key in (
        *("memory_peak", "memory_rise", "maxrss", "other_cores"),
        *("drawing_core_seconds", "update_core_seconds"),
    ):
        found[key] = statistics.median(p[key] for p in processes)
    return found | {"processes": len(processes), "quiet": sum(p in quiet for p in processes)}


def tables(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    threads, rates = report["setting"]["threads"], report["gemm"]
    peak = max(rates.values())
    lines = []
    for (algorithm, vocabulary), cell in grouped(report["processes"]).items():
        check = report["checks"][f"{algorithm}-{vocabulary}"]
        lines += [
            f"### {algorithm}, {vocabulary:,} tokens in the vocabulary",
            "",
            f"Same first loss {check['loss']:.6f} (relative difference {check['loss_error']:.1e}), "
            f"same gradient norm {check['grad_norm']:.4f} ({check['grad_norm_error']:.1e})."
            if check
            else "A row is a prompt with 8 completions, drawn by each library itself.",
            "",
            "| | rows/s | with reference pass | alignzoo is | rows per core-second | alignzoo is "
            "| peak MiB | rise MiB | TRL takes (peak, rise) | others' cores |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        found = {name: summary(processes, threads) for name, processes in cell.items()}
        ours = found[OURS.name]
        for name, s in found.items():
            lines.append(
                f"| {name} | {s['rows_per_second']:.2f} | {s['rows_per_second_all']:.2f} "
                f"| {ours['rows_per_second_all'] / s['rows_per_second_all']:.2f}x "
                f"| {s['rows_per_core_second']:.2f} "
                f"| {ours['rows_per_core_second'] / s['rows_per_core_second']:.2f}x "
                f"| {s['memory_peak']:.0f} | {s['memory_rise']:.0f} "
                f"| {s['memory_peak'] / ours['memory_peak']:.2f}x, "
                f"{s['memory_rise'] / ours['memory_rise']:.2f}x | {s['other_cores']:.2f} |"
            )
        if algorithm in DRAWN:
            lines += [
                "",
                "| core-seconds of a step | drawing | update | alignzoo updates |",
            ]
            lines.append("|---|---|---|---|")
            for name, s in found.items():
                ratio = s["update_core_seconds"] / ours["update_core_seconds"]
                lines.append(
                    f"| {name} | {s['drawing_core_seconds']:.2f} "
                    f"| {s['update_core_seconds']:.2f} | {ratio:.2f}x |"
                )
        work = ours["flops_per_step"] / 1e9
        reached = work / (ours["step_seconds"] * ours["own_cores"])
        lines += [
            "",
            f"A step of alignzoo is {work:.1f} GFLOP by its ledger, {reached:.0f} GFLOP per "
            f"core-second: {reached / peak:.0%} of the best matrix product "
            f"({', '.join(f'{name} {rate:.0f}' for name, rate in rates.items())}).",
            "",
        ]
    return "\n".join(lines)


def grouped(processes: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, list[dict]]]:
    """Processes by (algorithm, vocabulary), then by variant, in the order of TRIED."""
    cells: dict[tuple[str, int], dict[str, list[dict]]] = {}
    for p in processes:
        cell = cells.setdefault((p["algorithm"], p["vocabulary"]), {})
        cell.setdefault(p["variant"], []).append(p)
    return cells


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "alignzoo": hash_sources(Path(alignzoo.__file__).parent),
    }


def gemm(threads: int) -> dict[str, float]:
    """The best of three processes by shape: the machine's rate, not its load."""
    found = [json.loads(call([str(HERE / "gemm.py"), str(threads)], threads)) for _ in range(3)]
    return {name: max(rates[name] for rates in found) for name in found[0]}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny and once")
    parser.add_argument("--flags", action="store_true", help="every variant, not only the table's")
    parser.add_argument("--algorithms", nargs="+", choices=TRIED, default=list(TRIED))
    parser.add_argument("--vocabularies", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for quiet")
    parser.add_argument("--name", help="of the files of results [default: table, flags or none]")
    args = parser.parse_args()
    base = SMOKE if args.quick else FULL
    setting = Setting(
        vocabularies=tuple(args.vocabularies or base.vocabularies),
        steps=args.steps or base.steps,
        rounds=args.rounds or base.rounds,
        layers=base.layers,
        threads=args.threads,
        patience=args.patience,
    )
    with tempfile.TemporaryDirectory(prefix="alignzoo-speed-") as folder:
        bench = Bench(Path(folder), setting)
        bench.prepare()
        rates = gemm(setting.threads)
        checks = {}
        for vocabulary in setting.vocabularies:
            for algorithm in args.algorithms:
                key = f"{algorithm}-{vocabulary}"
                checks[key] = bench.check(algorithm, vocabulary)
                say(f"{key}: {checks[key]}")
                variants = [v for v in TRIED[algorithm] if args.flags or v.name in TABLE]
                bench.measure(algorithm, vocabulary, variants)
    report = {
        "command": f"python benchmarks/speed/compare.py {' '.join(sys.argv[1:])}".strip(),
        "machine": machine(),
        "setting": vars(setting),
        "gemm": rates,
        "checks": checks,
        "processes": bench.processes,
    }
    text = tables(report)
    print(text)
    name = args.name or (None if args.quick else "flags" if args.flags else "table")
    if name:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
        m = report["machine"]
        packages = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
        head = f"`{report['command']}` on {m['cores']} cores of {m['cpu']}, {packages}.\n\n"
        (RESULTS / f"{name}.md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()

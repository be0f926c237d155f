"""Compare alignzoo with TRL on one machine: `python benchmarks/speed/compare.py [--quick]`.

Each measurement is a fresh process, and the processes of the variants alternate, so that a slow
minute of the machine affects all of them. First both libraries take the same two steps from the
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
from rows import make_rows, read_rows

import alignzoo
from alignzoo.fingerprints import hash_sources

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "speed"
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-3
SPARE = 0.25  # cores that other processes may take from ours


@dataclass(frozen=True)
class Variant:
    """One way to run one library.

    `same_batches`: a step has the rows of our step; `same_loss`: and its first loss is ours.
    """

    name: str
    side: str
    flags: dict[str, Any] = field(default_factory=dict)
    same_batches: bool = True
    same_loss: bool = True


OURS = Variant("alignzoo", "ours")
LARGER = Variant("alignzoo, micro_tokens 8192", "ours", {"micro_tokens": 8192})
TRL_DEFAULTS = Variant("TRL, defaults", "theirs")
ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
# KTOTrainer estimates a KL per micro-batch from its rows, and refuses micro-batches of one row.
TWO_BY_TWO = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
# Micro-batches of one group; the 64 completions are still sampled at once.
EIGHT_BY_EIGHT = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8}
PRECOMPUTE = {"precompute_ref_log_probs": True}
BY_LENGTH = {"train_sampling_strategy": "group_by_length"}
# Trainers of pairs drop the column of lengths as unused, but their sampler needs it.
KEEP_LENGTH = {"length_column_name": "length", "remove_unused_columns": False}
# Flags of the installed version for speed or memory on a CPU; README.md has the results.
TRIED = {
    "dpo": [
        TRL_DEFAULTS,
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
        TRL_DEFAULTS,
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
        TRL_DEFAULTS,
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
        TRL_DEFAULTS,
        Variant("TRL, 8 micro-batches of 1", "theirs", ONE_BY_ONE),
        Variant("TRL, by length", "theirs", BY_LENGTH | KEEP_LENGTH, same_batches=False),
        Variant("TRL, 1 loader process", "theirs", {"dataloader_num_workers": 1}),
        Variant("TRL, best flags", "theirs", ONE_BY_ONE),
        OURS,
        LARGER,
    ],
    "grpo": [
        TRL_DEFAULTS,
        Variant("TRL, best flags", "theirs", EIGHT_BY_EIGHT),
        OURS,
        LARGER,
    ],
}
# Each library samples its own completions, so their losses are on different data.
ONLINE = ("grpo",)
TABLE = (
    "TRL, defaults",
    "TRL, best flags",
    "TRL, best flags, patched",
    "alignzoo",
    "alignzoo, micro_tokens 8192",
)


@dataclass(frozen=True)
class Setting:
    """The size of the comparison."""

    vocabularies: tuple[int, ...]
    steps: int
    rounds: int
    layers: int
    threads: int = 2
    batch_size: int = 8
    learning_rate: float = 1e-4
    patience: float = 60.0  # seconds to wait before each process for other load to end
    model: Path | None = None  # a model and pairs of its own, in place of random ones
    pairs: Path | None = None


FULL = Setting(vocabularies=(8_192, 50_257), steps=8, rounds=3, layers=4)
SMOKE = Setting(vocabularies=(1_024,), steps=4, rounds=1, layers=1)


class LossesDiffer(SystemExit):
    """The two libraries compute different things, so comparing their speeds means nothing."""


@dataclass
class Bench:
    """Models and rows in a folder, and processes that train on them one after the other."""

    folder: Path
    setting: Setting
    processes: list[dict[str, Any]] = field(default_factory=list)

    def prepare(self) -> None:
        """Write the models."""
        for vocabulary in self.setting.vocabularies if self.setting.model is None else ():
            make_model(self.folder / f"model-{vocabulary}", vocabulary, self.setting.layers)

    def run_variant(
        self, algorithm: str, vocabulary: int, variant: Variant, steps: int, check: bool = False
    ) -> dict[str, Any]:
        """Run one process and return the measurements of its meter."""
        setting = self.setting
        count = steps * setting.batch_size
        if setting.pairs is not None:
            rows = read_rows(self.folder, setting.pairs, count, setting.batch_size)
        else:
            rows = make_rows(self.folder, algorithm, count, setting.batch_size, vocabulary)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            result = Path(scratch) / "result.json"
            job = {
                "algorithm": algorithm,
                "model": str(setting.model or self.folder / f"model-{vocabulary}"),
                "rows": {name: str(path) for name, path in rows.items()},
                "steps": steps,
                "batch_size": setting.batch_size,
                "learning_rate": setting.learning_rate,
                "threads": setting.threads,
                "flags": scale_accumulation(variant.flags, setting.batch_size),
                "check": check,
                "folder": scratch,
                "result": str(result),
            }
            # A cache of its own: a second process would find the reference of the first one.
            caches = {"HF_DATASETS_CACHE": f"{scratch}/cache"}
            others = wait_for_quiet(setting.threads, setting.patience)
            run_python(
                [str(HERE / f"{variant.side}.py"), json.dumps([job])], setting.threads, caches
            )
            found = json.loads(result.read_text())
        if not variant.same_batches:
            # Sorted batches begin with the longest rows, which must count.
            found["rows_per_second"] = steps * setting.batch_size / found["all_seconds"]
        if variant.flags.get("packing"):
            # A step takes `per_step` packed blocks; count the rows in them.
            per_step = variant.flags["per_device_train_batch_size"]
            rows_per_block = steps * setting.batch_size / found["blocks"]
            found["rows_per_second"] *= per_step * rows_per_block / setting.batch_size
        with_reference = found.get("precompute_seconds", 0.0) / (steps * setting.batch_size)
        if "rows_per_second" in found:
            found["rows_per_second_all"] = 1 / (1 / found["rows_per_second"] + with_reference)
        loadavg = Path("/proc/loadavg").read_text().split()[:3]
        return found | {"others_before": others, "loadavg": [float(x) for x in loadavg]}

    def check(self, algorithm: str, vocabulary: int) -> dict[str, float]:
        """Compare the first two losses and gradient norms of both libraries.

        Return the first ones of ours and the errors; raise `LossesDiffer` if they differ.
        """
        # A trained model, whose adapter is filled at random, magnifies rounding from step to step.
        steps = 1 if algorithm in ONLINE or self.setting.model is not None else 2
        ours = self.run_variant(algorithm, vocabulary, OURS, steps=steps, check=True)
        found = {"loss": ours["losses"][0], "grad_norm": ours["norms"][0]}
        theirs = self.run_variant(algorithm, vocabulary, TRL_DEFAULTS, steps=steps, check=True)
        if (ours["trainable"], ours["trained_sum"]) != (theirs["trainable"], theirs["trained_sum"]):
            raise LossesDiffer(f"the weights differ: {ours['trainable']} and {theirs['trainable']}")
        if algorithm in ONLINE:
            return {}
        for name, key, tolerance in (
            ("loss", "losses", LOSS_TOLERANCE),
            ("grad_norm", "norms", NORM_TOLERANCE),
        ):
            error = max(abs(a - b) / abs(b) for a, b in zip(ours[key], theirs[key], strict=True))
            found[f"{name}_error"] = error
            if error > tolerance:
                raise LossesDiffer(f"{algorithm}: {name} {ours[key]} here, {theirs[key]} in TRL")
        return found

    def measure(self, algorithm: str, vocabulary: int, variants: list[Variant]) -> None:
        """Run all variants in turn, once per round."""
        for number in range(self.setting.rounds):
            for variant in variants:
                found = self.run_variant(algorithm, vocabulary, variant, self.setting.steps)
                key = {"algorithm": algorithm, "vocabulary": vocabulary, "variant": variant.name}
                if variant.same_batches and variant.same_loss and algorithm not in ONLINE:
                    self.check_first_loss(key, found)
                self.processes.append({**key, "round": number, **found})
                log(
                    f"{algorithm} {vocabulary} {variant.name}: {found['rows_per_second']:.2f} "
                    f"rows/s on {found['own_cores']:.2f} cores, {found['memory_rise']:.0f} MiB, "
                    f"others {found['other_cores']:.2f} cores"
                )

    def check_first_loss(self, key: dict[str, Any], found: dict[str, Any]) -> None:
        """Raise `LossesDiffer` if a process starts with another loss than the first of its kind."""
        same = [
            p
            for p in self.processes
            if (p["algorithm"], p["vocabulary"]) == (key["algorithm"], key["vocabulary"])
            and p["losses"]
        ]
        if same and found["losses"]:
            a, b = found["losses"][0], same[0]["losses"][0]
            if abs(a - b) > LOSS_TOLERANCE * abs(b):
                raise LossesDiffer(f"{key}: first loss {a}, but {b} in {same[0]['variant']}")


def scale_accumulation(flags: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Return flags for steps of `batch_size` rows; those of the table are for steps of 8."""
    name = "gradient_accumulation_steps"
    return flags | ({name: flags[name] * batch_size // FULL.batch_size} if name in flags else {})


def is_quiet(others: float, threads: int) -> bool:
    """Return True if other processes, on `others` cores, leave a core to each of our threads."""
    return others < (os.cpu_count() or 1) - threads + SPARE


def wait_for_quiet(threads: int, patience: float) -> float:
    """Wait up to `patience` seconds for a quiet machine; return the cores that others use."""
    end = time.monotonic() + patience
    while True:
        before, started = busy_seconds(), time.monotonic()
        time.sleep(2.0)
        others = (busy_seconds() - before) / (time.monotonic() - started)
        if is_quiet(others, threads) or time.monotonic() > end:
            return others


def run_python(arguments: list[str], threads: int, more: dict[str, str] | None = None) -> str:
    """Run a fresh Python with a number of threads and no network, and return its output.

    Exit with its error if it fails.
    """
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


def take_medians(processes: list[dict[str, Any]], threads: int) -> dict[str, float]:
    """Return medians over the processes of a variant; those of speed over quiet ones, if any."""
    quiet = [p for p in processes if is_quiet(p["other_cores"], threads)] or processes
    keys = ("rows_per_second", "rows_per_second_all", "step_seconds", "own_cores", "flops_per_step")
    found = {key: statistics.median(p[key] for p in quiet) for key in keys}
    # Another process on the same core adds to the wall time, but not to the CPU time.
    found["rows_per_core_second"] = statistics.median(
        p["rows_per_second_all"] / p["own_cores"] for p in processes
    )
    for key in (
        *("memory_peak", "memory_rise", "maxrss", "other_cores"),
        *("drawing_core_seconds", "update_core_seconds"),
    ):
        found[key] = statistics.median(p[key] for p in processes)
    return found | {"processes": len(processes), "quiet": sum(p in quiet for p in processes)}


def format_report(report: dict[str, Any]) -> str:
    """Return the whole report as Markdown."""
    threads, rates = report["setting"]["threads"], report["gemm"]
    lines = []
    for (algorithm, vocabulary), cell in group_processes(report["processes"]).items():
        found = {name: take_medians(processes, threads) for name, processes in cell.items()}
        lines += [
            f"### {algorithm}, {vocabulary:,} tokens in the vocabulary",
            "",
            format_check(report["checks"][f"{algorithm}-{vocabulary}"]),
            "",
            *speed_lines(found),
        ]
        if algorithm in ONLINE:
            lines += ["", *phase_lines(found)]
        lines += ["", format_utilisation(found[OURS.name], rates), ""]
    return "\n".join(lines)


def format_check(check: dict[str, float]) -> str:
    """Return the agreement of the two libraries in words."""
    if not check:
        return "A row is a prompt with 8 completions, sampled by each library itself."
    return (
        f"Same first loss {check['loss']:.6f} (relative difference {check['loss_error']:.1e}), "
        f"same gradient norm {check['grad_norm']:.4f} ({check['grad_norm_error']:.1e})."
    )


def speed_lines(found: dict[str, dict[str, float]]) -> list[str]:
    """Return the table of speed and memory, a line per variant."""
    lines = [
        "| | rows/s | with reference pass | alignzoo is | rows per core-second | alignzoo is "
        "| peak MiB | rise MiB | TRL takes (peak, rise) | others' cores |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
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
    return lines


def phase_lines(found: dict[str, dict[str, float]]) -> list[str]:
    """Return the table of CPU time in sampling and in the update, a line per variant."""
    lines = [
        "| core-seconds of a step | sampling | update | alignzoo updates |",
        "|---|---|---|---|",
    ]
    for name, s in found.items():
        ratio = s["update_core_seconds"] / found[OURS.name]["update_core_seconds"]
        lines.append(
            f"| {name} | {s['drawing_core_seconds']:.2f} "
            f"| {s['update_core_seconds']:.2f} | {ratio:.2f}x |"
        )
    return lines


def format_utilisation(ours: dict[str, float], rates: dict[str, float]) -> str:
    """Return alignzoo's arithmetic rate beside that of matrix products, in words."""
    work = ours["flops_per_step"] / 1e9
    reached = work / (ours["step_seconds"] * ours["own_cores"])
    return (
        f"A step of alignzoo is {work:.1f} GFLOP by its ledger, {reached:.0f} GFLOP per "
        f"core-second: {reached / max(rates.values()):.0%} of the best matrix product "
        f"({', '.join(f'{name} {rate:.0f}' for name, rate in rates.items())})."
    )


def group_processes(
    processes: list[dict[str, Any]],
) -> dict[tuple[str, int], dict[str, list[dict]]]:
    """Group processes by (algorithm, vocabulary), then by variant, in the order of TRIED."""
    cells: dict[tuple[str, int], dict[str, list[dict]]] = {}
    for p in processes:
        cell = cells.setdefault((p["algorithm"], p["vocabulary"]), {})
        cell.setdefault(p["variant"], []).append(p)
    return cells


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on: CPU, packages, source."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "alignzoo": hash_sources(Path(alignzoo.__file__).parent),
    }


def measure_gemm(threads: int) -> dict[str, float]:
    """Return the best rate of three processes by shape, GFLOP per core-second."""
    found = [
        json.loads(run_python([str(HERE / "gemm.py"), str(threads)], threads)) for _ in range(3)
    ]
    return {name: max(rates[name] for rates in found) for name in found[0]}


def log(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Check, measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smoke test: a tiny model, one round")
    parser.add_argument(
        "--flags", action="store_true", help="all variants, not only those of the table"
    )
    parser.add_argument("--algorithms", nargs="+", choices=TRIED, default=list(TRIED))
    parser.add_argument("--vocabularies", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for quiet")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", type=Path, help="a model's folder, for dpo on --pairs")
    parser.add_argument("--pairs", type=Path, help="a file of hh-rlhf")
    parser.add_argument("--name", help="name of the result files [default: table, flags or none]")
    args = parser.parse_args()
    if args.model is not None:
        args.algorithms = ["dpo"]
        args.vocabularies = [json.loads((args.model / "config.json").read_text())["vocab_size"]]
    base = SMOKE if args.quick else FULL
    setting = Setting(
        vocabularies=tuple(args.vocabularies or base.vocabularies),
        steps=args.steps or base.steps,
        rounds=args.rounds or base.rounds,
        layers=base.layers,
        threads=args.threads,
        patience=args.patience,
        batch_size=args.batch_size,
        model=args.model,
        pairs=args.pairs,
    )
    with tempfile.TemporaryDirectory(prefix="alignzoo-speed-") as folder:
        bench = Bench(Path(folder), setting)
        bench.prepare()
        rates = measure_gemm(setting.threads)
        checks = {}
        for vocabulary in setting.vocabularies:
            for algorithm in args.algorithms:
                key = f"{algorithm}-{vocabulary}"
                checks[key] = bench.check(algorithm, vocabulary)
                log(f"{key}: {checks[key]}")
                variants = [v for v in TRIED[algorithm] if args.flags or v.name in TABLE]
                bench.measure(algorithm, vocabulary, variants)
    report: dict[str, Any] = {
        "command": f"python benchmarks/speed/compare.py {' '.join(sys.argv[1:])}".strip(),
        "machine": describe_machine(),
        "setting": {name: value for name, value in vars(setting).items() if value is not None}
        | ({"model": setting.model.name} if setting.model else {})
        | ({"pairs": setting.pairs.name} if setting.pairs else {}),
        "gemm": rates,
        "checks": checks,
        "processes": bench.processes,
    }
    text = format_report(report)
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

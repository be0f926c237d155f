"""Boards for tests of reports: rows with curves, training, samples and every kind of feedback."""

from pathlib import Path
from random import Random
from typing import Any

from alignzoo_compare.board import Board, Row
from alignzoo_compare.grid import Grid

ITEMS = 40
# The gain over the base and the kind of feedback of each entry.
ENTRIES: dict[str, tuple[float, str | None]] = {
    "base": (0.0, None),
    "best-of-n": (0.35, "verifier_calls"),
    "sft": (0.12, "demonstrations"),
    "sft-chosen": (0.15, "pairs"),
    "raft": (0.3, "verifier_calls"),
    "random-reward": (0.0, "verifier_calls"),
    "dpo": (0.3, "pairs"),
    "ipo": (0.28, "pairs"),
    "orpo": (0.16, "pairs"),
    "simpo": (0.29, "pairs"),
    "kto": (0.24, "labels"),
    "grpo": (0.41, "verifier_calls"),
    "ppo": (0.36, "verifier_calls"),
    "rlaif": (0.2, "judge_calls"),
    "spin": (0.02, "demonstrations"),
}


def make_settings(entry: str) -> dict[str, Any]:
    """Return the settings of an entry as a grid has them."""
    if entry == "random-reward":
        return {"algorithm": "grpo", "reward": ["random"]}
    return {"algorithm": entry, **({"data": "chosen"} if entry == "sft-chosen" else {})}


def make_board(
    folder: Path,
    tasks: tuple[str, ...] = ("style", "sums"),
    seeds: int = 3,
    names: dict[str, str] | None = None,
    text: str = "",
    **changes: Any,
) -> Board:
    """Return a finished board.

    `names` replaces names of entries; `text` is added to every text that a model, a file or a
    plugin writes.
    """
    shown = {entry: (names or {}).get(entry, entry) for entry in ENTRIES}
    entries = {shown[entry]: make_settings(entry) for entry in ENTRIES}
    settings = {"budget": "3e11flops", "trials": 3, "eval_size": ITEMS, "curve": 2, **changes}
    grid = Grid(tasks=tasks, entries=entries, seeds=seeds, **settings)
    rows = [
        make_row(kind, entry, shown[entry], task, number, text)
        for task in tasks
        for entry in ENTRIES
        for kind, number in [
            *[("final", seed) for seed in range(seeds)],
            *[("trial", trial) for trial in range(3) if entry not in ("base", "best-of-n")],
        ]
    ]
    return Board(folder, grid, rows)


def make_row(kind: str, entry: str, shown: str, task: str, number: int, text: str) -> Row:
    """Return a finished row, the same whenever it is made."""
    random = Random(f"{entry} {task} {number} {kind}")
    difficulty = Random(task)
    gain, feedback = ENTRIES[entry]
    seed_effect = random.gauss(0, 0.02)
    scores = [
        min(1.0, max(0.0, difficulty.gauss(0.4, 0.15) + gain + seed_effect + random.gauss(0, 0.08)))
        for _ in range(ITEMS)
    ]
    trains = entry not in ("base", "best-of-n")
    flops = random.uniform(1e11, 5e11)
    steps = list(range(1, 61))
    mean = sum(scores) / ITEMS
    items: dict[str, list[Any]] = {
        "score": scores,
        "length": [random.randint(10, 40) for _ in range(ITEMS)],
        "ended": [random.random() < 0.95 for _ in range(ITEMS)],
        f"polite{text}": [random.random() for _ in range(ITEMS)],
    }
    if trains:
        items["kl"] = [max(0.0, random.gauss(20 * gain, 1)) for _ in range(ITEMS)]
    points = [
        {
            "step": 20 * (k + 1),
            "flops": flops * (k + 1) / 3,
            "score": mean - gain * (2 - k) / 4,
            "kl": 20 * gain * (k + 1) / 3,
        }
        for k in range(3)
    ]
    return {
        "kind": kind,
        "entry": shown,
        "task": task,
        "number": number,
        "seed": number,
        "settings": make_settings(entry),
        "trial": {"learning_rate": 0.003} if trains else {},
        "split": "test" if kind == "final" else "dev",
        "command": f"alignzoo run {shown} --task {task} --seed {number} {text}",
        "status": "finished",
        "error": None,
        "bounds": [0.0, 1.0],
        "summary": {"score": mean, "retention/loss": 2.0 + gain / 5},
        "answer_flops": None,
        "items": items,
        "curve": points if trains else [{"step": 0, "flops": 0.0, "score": mean, "kl": 0.4}],
        "training": {
            "step": steps if trains else [],
            "loss": [1 / step**0.5 + random.gauss(0, 0.02) for step in steps] if trains else [],
            "reward": [gain * step / 60 if entry == "grpo" else None for step in steps]
            if trains
            else [],
        },
        "proxy": {"before": 0.0, "after": 2.5, "std": 1.0} if entry == "ppo" else None,
        "samples": [
            {
                "item": item,
                "prompt": f"Can you write about lake {item}?{text}",
                "completion": f"The lake is fine, says {entry}.\nAll is well.{text}",
                "score": scores[item],
            }
            for item in range(3)
        ],
        "learning_rate": 0.001 if trains else None,
        "steps": 60,
        "ledger": {
            "total_flops": flops if trains else 6e8,
            "feedback": {feedback: 256} if feedback else {},
            "seconds": random.uniform(20, 60),
            "peak_memory_bytes": random.randint(400, 600) * 2**20,
        },
        "fingerprints": {
            "model": "m" * 64,
            "weights": "w" * 64,
            "data": "d",
            "code": "c" * 64,
            "plugin": f"p{entry}",
            "task": f"t{task}",
        },
        "environment": {"packages": {"torch": "2"}, "started": "2026-01-01T00:00:00Z"},
    }

"""The folder of a run, as far as `alignzoo view` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STORED_RECIPE = {"algorithm": "grpo", "model": "zoo-tiny", "task": "sums", "options": {}}


def drawn(step: int, reward: Any, **more: Any) -> dict[str, Any]:
    """Return a row of rollouts.jsonl."""
    return {
        "step": step, "round": step - 1, "prompt_index": 0, "prompt": f"prompt of {step}",
        "completion": f"completion with {reward}", "reward": reward, "rewards": {"task": reward},
        "advantage": 0.5, "length": 4, "ended": True, **more,
    }  # fmt: skip


def answer(phase: str, item: int, score: float | None, **more: Any) -> dict[str, Any]:
    """Return a row of evals.jsonl."""
    return {
        "phase": phase, "step": 0 if phase == "before" else 9, "task": "sums", "item": item,
        "prompt": f"held out {item}", "completion": f"{phase} {item}", "score": score, "length": 3,
        "ended": False, "logprob": -1.0, "ref_logprob": None, "seed": 1, "measures": {}, **more,
    }  # fmt: skip


def make_folder(folder: Path, rollouts: list[Any], evals: list[Any]) -> Path:
    """Write a run with these rows; a row that is a text is written as it is."""
    folder.mkdir()
    estimate = {"score": {"mean": 0.5, "low": None, "high": None, "n": 2}}
    results = {"before": estimate, "after": estimate}
    facts = {"recipe": STORED_RECIPE, "status": "running", "results": results}
    (folder / "run.json").write_text(json.dumps(facts))
    for name, rows in (("rollouts.jsonl", rollouts), ("evals.jsonl", evals)):
        lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
        if lines:
            (folder / name).write_text("".join(lines))
    return folder

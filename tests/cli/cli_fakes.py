"""What the core hands back, as far as the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Estimate:
    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 10


@dataclass
class Evaluation:
    summary: dict[str, Estimate]
    items: list[dict[str, Any]]


def evaluation(score: float, said: str) -> Evaluation:
    return Evaluation(
        summary={"score": Estimate(score, score - 0.1, score + 0.1), "ended": Estimate(0.9)},
        items=[
            {
                "item": i, "seed": i, "prompt": f"prompt {i}", "completion": said,
                "score": score + 0.01 * i, "length": 10, "ended": True, "logprob": -1.0,
                "ref_logprob": None, "measures": {},
            }
            for i in range(3)
        ],
    )  # fmt: skip

"""What a run has spent: compute by purpose, tokens, feedback, money, seconds, peak memory.

The leaderboard compares by this, and `--budget` stops on it. Counts only grow, and a resumed run
goes on counting where the checkpoint stood.
"""

from __future__ import annotations

import resource
import sys
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # slow to import, and the commands that only read a ledger need no torch
    import torch

# "scoring" is what plugins compute of a batch without gradient: old log-probs, values, a KL.
PURPOSES = (
    "update", "generation", "scoring", "reference", "reward", "judge", "reward_training",
)  # fmt: skip
# Cached are those of the calls whose answer was known; retries come beside the calls.
CALLS = ("judge_calls", "judge_cached", "judge_retries")
FEEDBACK = ("demonstrations", "pairs", "labels", "verifier_calls", *CALLS)


class Cost(NamedTuple):
    """The cost of forward or backward passes: floating-point operations and tokens computed."""

    flops: float = 0.0
    tokens: int = 0

    def plus(self, other: Cost) -> Cost:
        """Return the sum of two costs."""
        return Cost(self.flops + other.flops, self.tokens + other.tokens)


@dataclass
class Ledger:
    """Running totals. `flops` are floating-point operations by purpose, evaluation left out;
    `money` is in whatever a judge's prices are in."""

    flops: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0.0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0))
    feedback: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FEEDBACK, 0))
    money: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def pay(self, money: float) -> None:
        self.money += money

    def charge(self, purpose: str, cost: Cost) -> None:
        """Add the cost of a pass, under one of `PURPOSES`."""
        self.flops[purpose] += cost.flops
        self.tokens[purpose] += cost.tokens

    def use_feedback(self, kind: str, count: int) -> None:
        self.feedback[kind] += count

    def see_memory(self, peak_bytes: int) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_bytes)

    def add(self, other: Ledger) -> None:
        """Charge what another ledger says; the greater peak of memory counts."""
        self._combine(other, 1)
        self.see_memory(other.peak_memory_bytes)

    def since(self, before: Ledger) -> Ledger:
        """What was spent after the ledger was as it is in `before`, a copy of it."""
        spent = deepcopy(self)
        spent._combine(before, -1)
        return spent

    def _combine(self, other: Ledger, sign: int) -> None:
        for name in PURPOSES:
            self.flops[name] += sign * other.flops[name]
            self.tokens[name] += sign * other.tokens[name]
        for kind in FEEDBACK:
            self.feedback[kind] += sign * other.feedback[kind]
        self.money += sign * other.money
        self.seconds += sign * other.seconds

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())

    def as_dict(self) -> dict[str, Any]:
        return {"total_flops": self.total_flops, **asdict(self)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from there. The ledger stays the one that others hold; what an older version did
        not count is 0."""
        for name, value in asdict(Ledger()).items():
            found = saved.get(name, value)
            setattr(self, name, {**value, **found} if isinstance(value, dict) else found)


def peak_memory(device: torch.device) -> int:
    """Bytes, the highest so far."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB

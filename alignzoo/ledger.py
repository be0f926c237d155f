"""The ledger of a run: compute by purpose, tokens, feedback, money, seconds, peak memory.

The leaderboard compares algorithms by it, and `--budget` ends a run by it. Counts only grow; a
resumed run continues from those of its checkpoint.
"""

from __future__ import annotations

import functools
import math
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignzoo.errors import BadInput, nearest

if TYPE_CHECKING:  # slow to import, and commands that only read a ledger do not need it
    import torch

# "scoring": forward passes of plugins without gradient, for old log-probs, values or a KL.
PURPOSES = (
    "update", "generation", "scoring", "reference", "teacher", "reward", "judge",
    "reward_training",
)  # fmt: skip
ROW_FEEDBACK = ("demonstrations", "pairs", "labels")
ONLINE_FEEDBACK = ("verifier_calls", "judge_calls")
# Retries are counted beside the calls.
FEEDBACK = (*ROW_FEEDBACK, *ONLINE_FEEDBACK, "judge_retries")
SAVED = ("flops", "tokens", "money", "judge_calls")


class Cost(NamedTuple):
    """The cost of forward or backward passes: floating-point operations and tokens computed."""

    flops: float = 0.0
    tokens: int = 0

    def plus(self, other: Cost) -> Cost:
        """Return the sum of two costs."""
        return Cost(self.flops + other.flops, self.tokens + other.tokens)


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    return functools.reduce(Cost.plus, costs, Cost())


@dataclass
class Ledger:
    """Running totals of a run, without its evaluations.

    `flops` and `tokens` are by purpose (`PURPOSES`), `feedback` counts by kind (`FEEDBACK`),
    `money` is in the currency of the judge's prices, `seconds` are wall-clock time.

    What a cache held is charged as if it had been computed, so that the totals and a budget do not
    depend on the cache. `saved` is the part of the totals that was read from a cache instead.
    """

    flops: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0.0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0))
    feedback: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FEEDBACK, 0))
    saved: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SAVED, 0))
    money: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __post_init__(self) -> None:
        self._limits: tuple[Exception, float, float] | None = None

    @contextmanager
    def limited(self, error: Exception, *, flops: float, feedback: float) -> Iterator[None]:
        """Raise an error within the block as soon as a total exceeds its limit.

        The totals are `total_flops` and `online_feedback`.
        """
        self._limits = error, flops, feedback
        try:
            yield
        finally:
            self._limits = None

    def pay(self, money: float) -> None:
        """Add money that a judge has cost."""
        self.money += money

    def charge(self, purpose: str, cost: Cost) -> None:
        """Add the cost of a pass under one of `PURPOSES`; raise `KeyError` for any other.

        Raise the error of `limited` above its limit.
        """
        self.flops[purpose] += cost.flops
        self.tokens[purpose] += cost.tokens
        self._check_limits()

    def spend(
        self,
        purpose: str,
        *,
        flops: float = 0.0,
        tokens: float = 0,
        money: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        """Add what a plugin has spent under one of `PURPOSES`.

        `seconds` are those that pass elsewhere: the time of this process is counted anyway. Raise
        `BadInput` for another purpose, and for an amount that is negative or not finite.
        """
        if purpose not in PURPOSES:
            problem = f"run.charge: the ledger has no purpose {purpose!r}"
            raise BadInput(problem, hint=nearest(purpose, PURPOSES))
        amounts = {"flops": flops, "tokens": tokens, "money": money, "seconds": seconds}
        for name, amount in amounts.items():
            if not 0 <= amount < math.inf:
                raise BadInput(f"run.charge: {name} is {amount}, not a number of at least 0")
        self.charge(purpose, Cost(flops, int(tokens)))
        self.pay(money)
        self.seconds += seconds

    def use_feedback(self, kind: str, count: int) -> None:
        """Count feedback of a kind of `FEEDBACK`; raise `KeyError` for any other.

        Raise the error of `limited` above its limit.
        """
        self.feedback[kind] += count
        self._check_limits()

    def _check_limits(self) -> None:
        if self._limits is None:
            return
        error, flops, feedback = self._limits
        if self.total_flops > flops or self.online_feedback > feedback:
            raise error

    def save(self, cost: Cost, *, money: float = 0.0, judge_calls: int = 0) -> None:
        """Count what a cache has saved; it is charged all the same, by the other methods."""
        saved = {"flops": cost.flops, "tokens": cost.tokens, "money": money}
        for name, value in {**saved, "judge_calls": judge_calls}.items():
            self.saved[name] += value

    def see_memory(self, peak_bytes: int) -> None:
        """Raise the peak memory to this many bytes if it is lower."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_bytes)

    def add(self, other: Ledger) -> None:
        """Add the totals of another ledger; of peak memory, keep the larger."""
        self._combine(other, 1)
        self.see_memory(other.peak_memory_bytes)

    def since(self, before: Ledger) -> Ledger:
        """Return what was spent since `before`, an earlier copy of this ledger."""
        spent = deepcopy(self)
        spent._combine(before, -1)
        return spent

    def _combine(self, other: Ledger, sign: int) -> None:
        for name in PURPOSES:
            self.flops[name] += sign * other.flops[name]
            self.tokens[name] += sign * other.tokens[name]
        for kind in FEEDBACK:
            self.feedback[kind] += sign * other.feedback[kind]
        for name in SAVED:
            self.saved[name] += sign * other.saved[name]
        self.money += sign * other.money
        self.seconds += sign * other.seconds

    @property
    def total_flops(self) -> float:
        """Return the floating-point operations of all purposes."""
        return sum(self.flops.values())

    @property
    def online_feedback(self) -> int:
        """Return how often completions were scored or judged, retries left out."""
        return sum(self.feedback[kind] for kind in ONLINE_FEEDBACK)

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as they stand in `run.json`."""
        return {"total_flops": self.total_flops, **asdict(self)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Set the totals to those of `as_dict`, in place, because other objects hold this ledger.

        A count that is missing, from an older version, is 0.
        """
        for name, value in asdict(Ledger()).items():
            found = saved.get(name, value)
            setattr(self, name, {**value, **found} if isinstance(value, dict) else found)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: of the GPU, or resident on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak memory so far, that of another run in this process; Linux and CUDA can."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")

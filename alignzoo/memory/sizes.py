"""What an estimate says: the bytes of each part and each phase of a run, and its time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STEP, SAMPLING, LOADING, SAVING = "training step", "sampling", "loading", "checkpoint"
MOMENTS = 2  # tensors of AdamW for each trained one


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take.

    Args:
        model, machine: names.
        parameters, trained: number of weights, and of those that are trained.
        micro_tokens: what `--micro-tokens` has to be for this.
        groups, tokens: rows and tokens of the largest micro-batch.
        parts: bytes of each part during a training step, at its peak.
        phases: bytes of each phase of the run at its peak, `base` included.
        cache: bytes of keys and values while completions are drawn, 0 if none are.
        base: bytes of Python and its libraries, or of CUDA.
        memory: bytes that there are.
        flops, seconds: operations and seconds of an average optimizer step.
        speed: what the seconds are computed from.
    """

    model: str
    machine: str
    parameters: int
    trained: int
    micro_tokens: int
    groups: int
    tokens: int
    parts: dict[str, int]
    phases: dict[str, int]
    cache: int
    base: int
    memory: int
    flops: float = 0.0
    seconds: float = 0.0
    speed: str = ""

    @property
    def peak(self) -> int:
        """Return the most bytes that any phase takes."""
        return max(self.phases.values())

    @property
    def fits(self) -> bool:
        """Return whether that is no more than there is."""
        return self.peak <= self.memory

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "peak": self.peak, "fits": self.fits}


def gigabytes(size: float) -> str:
    """Return bytes as text, `2.61 GB` or `0.04 GB`."""
    return f"{size / 1e9:,.2f} GB"

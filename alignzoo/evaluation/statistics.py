"""Means with 95% intervals, in closed form: the same numbers every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import evaluate

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items; `low` and `high` are its 95% interval, None where none can be had."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1


def estimate(values: Sequence[float]) -> Estimate:
    """The mean and its 95% interval: Wilson's for zeros and ones, Student's for anything else.

    Wilson 1927 keeps its coverage near 0 and 1, where the normal interval collapses to a point.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to estimate a mean from")
    mean = math.fsum(values) / n
    if all(v in (0, 1) for v in values):
        low, high = wilson(mean, n)
        return Estimate(mean, low, high, n)
    if n < 3:
        return Estimate(mean, n=n)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = student_t(n - 1) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share p of n trials.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    z2 = Z95 * Z95
    centre = share + z2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t, by the Cornish-Fisher expansion around the normal's.

    Abramowitz & Stegun 26.7.5 with four terms; within 0.2% from 3 degrees of freedom on, 1% at 2.
    """
    z, v = Z95, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


_DESCRIPTION = """The mean of one number per item, with its 95% confidence interval: Wilson's for
zeros and ones, Student's otherwise."""


class Mean(evaluate.Metric):
    """`Mean().compute(predictions=[0.2, 0.9, ...]) -> {"mean", "low", "high", "n"}`."""

    def __init__(self, **options: Any):
        # In memory: evaluate would otherwise write an arrow file into the user's cache.
        super().__init__(keep_in_memory=True, **options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions: one number per item",
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float]) -> dict[str, Any]:
        return asdict(estimate([float(p) for p in predictions]))

"""The zoo's metric as an `evaluate.Metric`, packaged: used directly, so no hub is asked for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import datasets
import evaluate

from alignzoo.evaluation.statistics import estimate

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

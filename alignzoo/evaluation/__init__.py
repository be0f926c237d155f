"""Scores with intervals, item by item, before and after."""

from alignzoo.evaluation.evaluate import Evaluation, evaluate, evaluate_model
from alignzoo.evaluation.statistics import Estimate, Mean, estimate

__all__ = [
    "Estimate",
    "Evaluation",
    "Mean",
    "estimate",
    "evaluate",
    "evaluate_model",
]

"""Scores with intervals, item by item, before and after."""

from alignzoo.evaluation.evaluate import Evaluation, evaluate, evaluate_model
from alignzoo.evaluation.judging import Asking, evaluate_judge
from alignzoo.evaluation.metrics import Mean
from alignzoo.evaluation.statistics import Estimate, estimate

__all__ = [
    "Asking",
    "Estimate",
    "Evaluation",
    "Mean",
    "estimate",
    "evaluate",
    "evaluate_judge",
    "evaluate_model",
]

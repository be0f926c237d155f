"""Scores with intervals, item by item, before and after training."""

from alignzoo import deprecated
from alignzoo.evaluation.evaluate import estimates_of, evaluate_run
from alignzoo.evaluation.items import Evaluation, EvaluationItem, compare_evaluations
from alignzoo.evaluation.models import EvaluationSettings, evaluate_model
from alignzoo.evaluation.statistics import Estimate, correlation, mean_with_interval

__all__ = [
    "Estimate",
    "Evaluation",
    "EvaluationItem",
    "EvaluationSettings",
    "compare_evaluations",
    "correlation",
    "estimates_of",
    "evaluate_model",
    "evaluate_run",
    "mean_with_interval",
]

__getattr__ = deprecated.names_of(__name__)

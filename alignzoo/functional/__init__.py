"""Pure functions shared by algorithms: numbers and tensors in, numbers and tensors out.

learning_rate     the schedule, and the rate for a model of another width
preference        losses on pairs
policy_gradient   ratios, clipping, KL estimates, whitening
metrics           metrics of pairs and of labelled completions
"""

from alignzoo.functional.learning_rate import learning_rate_factor, learning_rate_for_width
from alignzoo.functional.metrics import label_metrics, pair_metrics
from alignzoo.functional.policy_gradient import (
    MAX_LOG_RATIO,
    REWARD_PREFIX,
    Estimator,
    ImportanceMode,
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    importance_weights,
    kl_estimate,
    nanstd,
    per_token,
    rewards_apart,
    whiten,
)
from alignzoo.functional.preference import best_and_worst, hinge_loss, ipo_loss, sigmoid_loss

__all__ = [
    "MAX_LOG_RATIO",
    "REWARD_PREFIX",
    "Estimator",
    "ImportanceMode",
    "best_and_worst",
    "clip_metrics",
    "clipped_surrogate",
    "hinge_loss",
    "importance_ratio",
    "importance_weights",
    "ipo_loss",
    "kl_estimate",
    "label_metrics",
    "learning_rate_factor",
    "learning_rate_for_width",
    "nanstd",
    "pair_metrics",
    "per_token",
    "rewards_apart",
    "sigmoid_loss",
    "whiten",
]

"""Scores for completions, as plugins with the hook `alignzoo_reward`."""

from alignzoo import deprecated
from alignzoo.rewards.model import STEP_REWARDS, ModelReward
from alignzoo.rewards.resolve import (
    ENVIRONMENT_REWARD,
    LEARNED,
    TASK,
    RewardSpec,
    resolve_rewards,
)
from alignzoo.rewards.rows import RowReward
from alignzoo.rewards.score import PLUGIN_PREFIX, score_completions, weighted_sum

__all__ = [
    "ENVIRONMENT_REWARD",
    "LEARNED",
    "PLUGIN_PREFIX",
    "STEP_REWARDS",
    "TASK",
    "ModelReward",
    "RewardSpec",
    "RowReward",
    "resolve_rewards",
    "score_completions",
    "weighted_sum",
]

__getattr__ = deprecated.names_of(__name__)

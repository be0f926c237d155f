"""Scores for completions, as plugins with the hook `alignzoo_reward`."""

from alignzoo.rewards.choose import LEARNED, TASK, rewards_of
from alignzoo.rewards.judge import PREFIX, judge, weighted_sum
from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.named import Named
from alignzoo.rewards.rows import RowReward

__all__ = [
    "LEARNED",
    "PREFIX",
    "TASK",
    "ModelReward",
    "Named",
    "RowReward",
    "judge",
    "rewards_of",
    "weighted_sum",
]

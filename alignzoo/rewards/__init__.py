"""Scores for completions, as plugins with the hook `alignzoo_reward`."""

from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.resolve import LEARNED, TASK, Named, rewards_of
from alignzoo.rewards.rows import RowReward
from alignzoo.rewards.score import PREFIX, judge, weighted_sum

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

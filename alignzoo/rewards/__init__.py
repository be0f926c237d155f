"""Scores for completions, as plugins with the hook `alignzoo_reward`."""

from alignzoo.rewards.model import ModelReward
from alignzoo.rewards.task import TaskReward

__all__ = ["ModelReward", "TaskReward"]

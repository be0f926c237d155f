"""Scores for completions, as plugins with the hook `alignzoo_reward`."""

from alignzoo.rewards.task import TaskReward

__all__ = ["TaskReward"]

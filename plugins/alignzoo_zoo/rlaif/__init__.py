"""Reinforcement learning from AI feedback."""

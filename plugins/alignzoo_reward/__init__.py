"""Reward models from preferences."""

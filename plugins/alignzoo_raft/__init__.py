"""Reward-ranked fine-tuning."""

"""Rewards that check the content or the form of a completion."""

"""Rewards that check what a completion says or how it is written."""

"""Odds Ratio Preference Optimization."""

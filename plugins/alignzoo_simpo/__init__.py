"""Simple Preference Optimization."""

"""Kahneman-Tversky Optimization."""

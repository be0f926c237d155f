"""Iterative reasoning preference optimisation."""

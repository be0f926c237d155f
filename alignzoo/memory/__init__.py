"""Predict the memory and the time of a run from its recipe, its data and sizes alone."""

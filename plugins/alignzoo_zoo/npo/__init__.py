"""Unlearning by negative preference optimisation."""

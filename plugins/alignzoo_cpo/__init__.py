"""Contrastive Preference Optimization."""

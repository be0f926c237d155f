"""Distillation from the policy itself, which has seen more."""

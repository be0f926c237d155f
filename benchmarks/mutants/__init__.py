"""Seeded mistakes, which `alignzoo check` has to find."""

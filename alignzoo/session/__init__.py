"""Assemble, prepare and execute a run from its recipe."""

from alignzoo.session.session import Result, execute, prepare, recipe_for

__all__ = ["Result", "execute", "prepare", "recipe_for"]

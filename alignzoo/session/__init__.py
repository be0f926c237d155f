"""From a recipe to a finished run."""

from alignzoo.session.session import Result, execute, prepare, recipe_for

__all__ = ["Result", "execute", "prepare", "recipe_for"]

"""A run in progress: what every hook is given."""

from alignzoo.run.run import Run

__all__ = ["Run"]

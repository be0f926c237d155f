"""A batch with every kind of group."""

from __future__ import annotations

import pytest

from alignzoo.batch import Batch, Example, collate


@pytest.fixture
def examples() -> list[Example]:
    """Groups of 1, 2 and 3; completions of one token; token 0, the pad, used as a word."""
    return [
        Example([3, 4, 5, 6, 7, 8, 9, 10, 11], [[1, 2, 0, 4], [5]]),
        Example([9, 8], [[1, 2], [5, 6, 7, 8, 9, 2, 3], [4]]),
        Example([7, 8, 9, 7], [[1, 2, 6]]),
        Example([1], [[5], [6]]),
    ]


@pytest.fixture
def batch(examples: list[Example]) -> Batch:
    return collate(examples)

"""The optimizer steps of a round are those of its rows, whatever part of them a process has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from alignzoo import Example, Rounds, collate
from alignzoo.training.rounds import Round


def parts(groups: int, rows: int, size: int) -> list[int]:
    """How many groups each mini-batch has, after checking that every group comes once."""
    recipe = SimpleNamespace(batch_size=size)
    run = SimpleNamespace(
        recipe=recipe,
        schedule=SimpleNamespace(rounds=Rounds(), rows_in=lambda index: rows),
        seed_for=lambda *what: 1,
        step=0,
        round=0,
        world=SimpleNamespace(rank=0),
    )
    batch = collate([Example([1], [[n + 1]]) for n in range(groups)])
    found = list(Round(batch, rows=[], began=0).remaining(run))
    tokens = sorted(token for part in found for token in part.tokens.flatten().tolist())
    assert tokens == list(range(1, groups + 1))
    return [len(part) for part in found]


@pytest.mark.parametrize(
    ("groups", "rows", "size", "expected"),
    [
        (10, 10, 4, [4, 4, 2]),  # all of the rows: steps of the batch size
        (5, 10, 4, [2, 2, 1]),  # one of two processes
        (3, 8, 4, [1, 2]),  # what a sampler has kept
        (1, 8, 2, [0, 0, 0, 1]),
        (0, 8, 4, [0, 0]),
        (20, 10, 4, [8, 8, 4]),  # two groups of each row
        (3, 4, 4, [3]),
    ],
)
def test_mini_batches(groups, rows, size, expected):
    assert parts(groups, rows, size) == expected

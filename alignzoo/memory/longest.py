"""Find the largest micro-batch that the data of a run can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.batch import Batch, Example, collate
from alignzoo.data import Prompts
from alignzoo.recipe import Recipe


class Longest(NamedTuple):
    """The largest micro-batch, and whether a step can have another one beside it."""

    batch: Batch
    alone: bool


def longest_micro_batch(
    examples: Sequence[Example], algorithm: Any, recipe: Recipe, micro_tokens: int
) -> Longest:
    """Return the micro-batch with the most tokens that a step on these rows can have.

    Completions that are still to be drawn have `--max-new-tokens` tokens. A step's rows are taken
    at random, so its longest ones can be any `batch_size` of them that are next to each other in
    order of length; `Batch.split` cuts them as it does here.
    """
    full = [with_completions(example, algorithm, recipe) for example in examples]
    full.sort(key=lambda example: -example.size)
    rows = min(recipe.batch_size, len(full))
    if Traits.of(algorithm).couples_rows:
        return Longest(collate(full[:rows]), alone=True)
    sizes = [example.size for example in full]
    sums = list(accumulate(sizes, initial=0))

    def tokens(start: int) -> int:
        return sums[start + count(start)] - sums[start]

    def count(start: int) -> int:
        fitting = max(micro_tokens // max(sizes[start], 1), 1)
        return min(fitting, rows, len(full) - start)

    best = max(range(len(full)), key=tokens)
    return Longest(collate(full[best : best + count(best)]), alone=count(0) >= rows)


def with_completions(example: Example, algorithm: Any, recipe: Recipe) -> Example:
    """Return a row with the longest completions that an algorithm can draw for it."""
    drawn = completions_drawn(algorithm)
    if not drawn:
        return example
    longest = [[0] * recipe.max_new_tokens] * drawn
    return replace(example, completions=[*example.completions, *longest], masks=None, columns={})


def completions_drawn(algorithm: Any) -> int:
    """Return how many completions of a prompt an algorithm learns from besides those of the data.

    Self-play draws one beside each demonstration.
    """
    if algorithm.data is Prompts:
        return Traits.of(algorithm).group_size
    draws = "alignzoo_sample" in discovery.hook_methods(algorithm)
    return int(draws and algorithm.data.name == "demonstrations")

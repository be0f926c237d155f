"""Is the final answer the right one? As mathematics, not as text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from alignzoo import BadInput, RowReward, hookimpl

# What a final answer stands behind in GSM8K, and in solutions that were written in its style.
MARKERS = ("####", "\nA:")


@dataclass(eq=False)
class Math(RowReward):
    """1 if the final answer equals the row's, by math-verify; 0 if not"""

    answer: Annotated[str, "column that holds the right answer, or a solution that ends in it"] = (
        "answer"
    )

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        columns = dict.fromkeys(name for example in data.train for name in example.row)
        if self.answer not in columns:
            raise BadInput(
                f"reward 'math': the rows have no column {self.answer!r}",
                where=data.report.source,
                hint=f"columns there: {', '.join(columns)}; name it: --reward math,answer=COLUMN",
            )

    def score(self, row: dict[str, Any], completion: str) -> float | None:
        gold = parsed(final(str(row.get(self.answer, ""))))
        return float(agree(gold, parsed(final(completion)))) if gold else None


def final(text: str) -> str:
    """What stands behind the last marker; a text without one is all of it."""
    for marker in MARKERS:
        if marker in text:
            return text.rpartition(marker)[2].strip()
    return text


@lru_cache(maxsize=4096)  # a group of completions shares its right answer
def parsed(text: str) -> tuple[Any, ...]:
    """The mathematical objects that a text may mean, boxed ones first; none if it holds none."""
    from math_verify import parse

    return tuple(parse(text))


def agree(gold: tuple[Any, ...], answer: tuple[Any, ...]) -> bool:
    from math_verify import verify

    return verify(list(gold), list(answer))

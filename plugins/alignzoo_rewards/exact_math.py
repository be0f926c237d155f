"""The reward `math`: compare the final answer with the row's as mathematics, not as text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from alignzoo import BadInput, RowReward, hookimpl

# The final answer follows one of these in GSM8K, and in solutions written in its style.
ANSWER_MARKERS = ("####", "\nA:")


@dataclass(eq=False)
class Math(RowReward):
    """1 if the final answer equals the row's, by math-verify; 0 if not"""

    answer: Annotated[str, "column with the right answer, or with a solution that ends in it"] = (
        "answer"
    )

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Refuse data without the column of answers."""
        columns = dict.fromkeys(name for example in data.train for name in example.row)
        if self.answer not in columns:
            raise BadInput(
                f"reward 'math': the rows have no column {self.answer!r}",
                where=data.report.source,
                hint=f"the columns are: {', '.join(columns)}; name the right one: "
                "--reward math,answer=COLUMN",
            )

    def score(self, row: dict[str, Any], completion: str) -> float | None:
        """Return 1 or 0, None if the row's answer is not mathematics."""
        gold = parse_math(extract_answer(str(row.get(self.answer, ""))))
        return float(are_equal(gold, parse_math(extract_answer(completion)))) if gold else None


def extract_answer(text: str) -> str:
    """Return the text after the last marker, or all of it without one."""
    for marker in ANSWER_MARKERS:
        if marker in text:
            return text.rpartition(marker)[2].strip()
    return text


@lru_cache(maxsize=4096)  # the completions of a group share the right answer
def parse_math(text: str) -> tuple[Any, ...]:
    """Return the mathematical objects found in a text, boxed ones first."""
    from math_verify import parse

    return tuple(parse(text))


def are_equal(gold: tuple[Any, ...], answer: tuple[Any, ...]) -> bool:
    """Return True if some object of the answer equals one of the right answer."""
    from math_verify import verify

    return bool(verify(list(gold), list(answer)))

"""The rewards `regex`, `format`, `length` and `overlong`: the form of a completion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import BadInput, Batch, RowReward, Run, hookimpl


@dataclass(eq=False)
class Regex(RowReward):
    """1 if a regular expression matches anywhere in the completion; 0 if not"""

    pattern: Annotated[str, "Python regular expression; ^ and $ are ends of the completion"]

    check_options = {"pattern": "[0-9]+"}

    def __post_init__(self) -> None:
        try:
            self.compiled = re.compile(self.pattern, re.DOTALL)
        except re.error as error:
            raise BadInput(
                f"reward 'regex': {self.pattern!r} is not a regular expression: {error}"
            ) from None

    def score(self, row: dict[str, Any], completion: str) -> float:
        """Return 1 or 0."""
        return float(self.compiled.search(completion) is not None)


@dataclass(eq=False)
class Format(RowReward):
    """1 if the completion has these tags in order, followed by an answer; 0 if not"""

    tags: Annotated[str, "tag names separated by spaces, each used once and not empty"] = "think"

    def __post_init__(self) -> None:
        block = r"<{0}>(?!\s*</{0}>)(?:(?!</?{0}>).)*</{0}>"
        blocks = (block.format(re.escape(tag)) for tag in self.tags.split())
        # If the last tag is `answer`, the answer is inside it; otherwise it follows the tags.
        rest = r"\s*" if self.tags.split()[-1:] == ["answer"] else r"\s*\S.*"
        self.compiled = re.compile(r"\s*" + r"\s*".join(blocks) + rest, re.DOTALL)

    def score(self, row: dict[str, Any], completion: str) -> float:
        """Return 1 or 0."""
        return float(self.compiled.fullmatch(completion) is not None)


@dataclass(eq=False)
class Length:
    """0 up to a length, falling to -1 beyond it: the soft overlong punishment of DAPO"""

    most: Annotated[int, "longest completion without a penalty, in tokens", Ge(0)]
    soft: Annotated[int, "tokens over which the reward falls from 0 to -1", Gt(0)] = 16

    check_options = {"most": 4}

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the penalties, `[N]`."""
        return overlong_penalty(batch.mask.sum(-1), self.most, self.soft)


@dataclass(eq=False)
class Overlong:
    """0, falling to -1 over the last tokens before --max-new-tokens: DAPO's equation 13"""

    cache: Annotated[int, "tokens before --max-new-tokens over which it falls", Gt(0)] = 16

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse a penalty that would begin before the first token."""
        if self.cache > recipe.max_new_tokens:
            raise BadInput(
                f"reward 'overlong': a cache of {self.cache} tokens is longer than "
                f"--max-new-tokens {recipe.max_new_tokens}",
                hint="use a smaller one: --reward overlong,cache=TOKENS",
            )

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the penalties, `[N]`."""
        most = run.recipe.max_new_tokens - self.cache
        return overlong_penalty(batch.mask.sum(-1), most, self.cache)


def overlong_penalty(lengths: Tensor, most: int, soft: int) -> Tensor:
    """Return the penalty of each completion by its length in tokens of the policy, `[N]`.

        0 if |y| <= most,   (most - |y|) / soft up to most + soft,   -1 beyond

    Equation 13 of Yu et al. 2025 (DAPO), https://arxiv.org/abs/2503.14476, with most = L_max -
    L_cache and soft = L_cache.
    """
    return ((most - lengths) / soft).clamp(-1.0, 0.0)

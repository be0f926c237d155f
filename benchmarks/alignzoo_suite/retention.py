"""Learn `style` without forgetting `sums`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alignzoo_suite.common import SPLITS, STANDARD_VIEWS, Row, Seed, check_view
from alignzoo_suite.style import Style
from alignzoo_suite.sums import Sums


@dataclass(eq=False)
class Retention:
    """Train on `style`, and be evaluated on `style` and `sums` in turn, each by its own score."""

    seed: Seed = 0
    text: Annotated[int, "rows of noisy text", Ge(1)] = 50_000
    demonstrations: Annotated[int, "good, not perfect examples", Ge(1)] = 2_000

    name = "retention"
    views = STANDARD_VIEWS
    splits = SPLITS
    worst = 0.0
    best = 1.0
    check_options = {"text": 200, "demonstrations": 200}

    def __post_init__(self) -> None:
        style = Style(self.seed, text=self.text, demonstrations=self.demonstrations)
        self._tasks: dict[str, Style | Sums] = {"style": style, "sums": Sums(self.seed)}

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of `style`, and for held-out prompts as many of `sums` in between.

        The column `task` names the task of a row.
        """
        check_view(view, self.views, split)
        learned = [row | {"task": "style"} for row in self._tasks["style"].rows(view, split)]
        if view != "prompts" or split == "train":
            return learned
        kept = [row | {"task": "sums"} for row in self._tasks["sums"].rows(view, split)]
        return [row for pair in zip(learned, kept, strict=False) for row in pair]

    def score(self, row: Row, completion: str) -> float:
        """Return the score by the row's task."""
        return self._tasks[row["task"]].score(row, completion)

    def measures(self, row: Row, completion: str) -> dict[str, float]:
        """Return the score under the name of the row's task, for a mean of each task."""
        return {row["task"]: self.score(row, completion)}

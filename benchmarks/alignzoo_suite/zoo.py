"""The task that zoo-tiny is pretrained on."""

from dataclasses import dataclass
from typing import Annotated

from alignzoo_suite.common import SEED_NAMES, SPLITS, Row, check_view, rng
from alignzoo_suite.style import Style
from alignzoo_suite.sums import Sums


@dataclass(eq=False)
class Zoo:
    """`style` and `sums`, shuffled together, as training data for zoo-tiny."""

    seed: int = 0
    text: Annotated[int, "rows of noisy text from each task"] = 50_000

    views = ("text", "prompts")
    splits = SPLITS
    worst = 0.0
    best = 1.0

    def __post_init__(self) -> None:
        self._parts: dict[str, Style | Sums] = {
            "style": Style(seed=self.seed, text=self.text),
            "sums": Sums(seed=self.seed, text=self.text),
        }

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of both tasks; the column `task` names the task of a row."""
        check_view(view, self.views, split)
        rows = [
            row | {"task": name}
            for name, part in self._parts.items()
            for row in part.rows(view, split)
        ]
        rng(self.seed, "zoo", view, SEED_NAMES[split]).shuffle(rows)
        return rows

    def score(self, row: Row, completion: str) -> float:
        """Return the score by the row's task."""
        return self._parts[row["task"]].score(row, completion)

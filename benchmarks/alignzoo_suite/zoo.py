"""The tasks that zoo-tiny and zoo-scout are pretrained on: two tasks in one."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from alignzoo_suite.common import SEED_NAMES, SPLITS, Row, Seed, check_view, rng
from alignzoo_suite.format import Format
from alignzoo_suite.style import Style
from alignzoo_suite.sums import SHARED_PROBLEMS, Sums
from alignzoo_suite.walks import Walks


@dataclass(eq=False)
class Mixed:
    """Two tasks or more, shuffled together; the score is that of the task a row is from."""

    seed: Seed = 0
    text: Annotated[int, "rows of noisy text from each task", Ge(1)] = 50_000

    views = ("text", "prompts")
    splits = SPLITS
    worst = 0.0
    best = 1.0
    check_options = {"text": 200}
    name: ClassVar[str]
    parts: ClassVar[dict[str, Any]]  # the classes of the tasks by name

    def __post_init__(self) -> None:
        self._tasks = {
            name: task(seed=self.seed, text=self.text) for name, task in self.parts.items()
        }

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of all tasks; the column `task` names the task of a row."""
        check_view(view, self.views, split)
        rows = [
            row | {"task": name}
            for name, task in self._tasks.items()
            for row in task.rows(view, split)
        ]
        rng(self.seed, self.name, view, SEED_NAMES[split]).shuffle(rows)
        return rows

    def score(self, row: Row, completion: str) -> float:
        """Return the score by the row's task."""
        return self._tasks[row["task"]].score(row, completion)


@dataclass(eq=False)
class Zoo(Mixed):
    """`style` and `sums`, as training data for zoo-tiny."""

    name = "zoo"
    known_exceptions = {"splits": SHARED_PROBLEMS}
    parts = {"style": Style, "sums": Sums}


@dataclass(eq=False)
class Scout(Mixed):
    """`format` and `walks`, as training data for zoo-scout."""

    text: Annotated[int, "rows of noisy text from each task", Ge(1)] = 30_000

    name = "scout"
    model = "zoo-scout"
    parts = {"format": Format, "walks": Walks}

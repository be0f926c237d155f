"""Laws for tasks: rows that are always the same, splits apart, and a score for every text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from alignzoo.data import VIEWS
from alignzoo.data.formats import Row
from alignzoo.errors import NotAvailable
from alignzoo.options import build
from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.odd_texts import ODD_TEXTS
from alignzoo.testing.subject import Subject

SCORED_ROWS = 8  # of each split
READ_ROWS = 200  # of each view and split, that are read as an algorithm reads them
MEASURED_ROWS = 4  # by a task that measures a model itself
ANSWERED_ROWS = 100  # demonstrations whose scores are compared


@dataclass
class TaskSubject(Subject):
    """A task, with the rows that it has given."""

    known: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    kind = "tasks"

    def fresh(self) -> TaskSubject:
        """Return a subject of its own for the same task."""
        return TaskSubject(self.name, self.options)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits of the task."""
        return tuple(getattr(self.plugin, "splits", ("train", "test")))

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield each view and split that has rows.

        If there is a dev split, `test` may have prompts alone.
        """
        for view in self.plugin.views:
            for split in self.splits:
                if split == "test" and "dev" in self.splits and view != "prompts":
                    continue
                yield view, split

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of a view and a split, which nothing may change."""
        if (view, split) not in self.known:
            self.known[view, split] = self.plugin.rows(view, split)
        return self.known[view, split]

    def start(self) -> None:
        """Read the first rows. Raise `NotAvailable` if the task has none."""
        if not self.plugin.views:
            raise NotAvailable("the task has no rows: it measures a model by itself")
        self.rows(*next(self.parts()))

    @property
    def scores(self) -> bool:
        """Return whether the task scores completions of prompts."""
        return hasattr(self.plugin, "score") and "prompts" in self.plugin.views

    def scored_rows(self) -> list[Row]:
        """Return rows that are scored: a few of each split."""
        if not self.scores:
            raise NotApplicable("the task scores no completions of prompts")
        return [row for split in self.splits for row in self.rows("prompts", split)[:SCORED_ROWS]]

    def observe(self) -> Any:
        """Return the rows of all views, with the scores of some, or what a model measures."""
        rows = [self.rows(view, split) for view, split in self.parts()]
        if hasattr(self.plugin, "measure"):
            model = self.prepare_run("dpo").model
            return rows, list(self.plugin.measure(model, self.splits[-1], MEASURED_ROWS))
        scored = self.scored_rows()[::SCORED_ROWS] if self.scores else []
        return rows, [self.plugin.score(deepcopy(r), t) for r in scored for t in ODD_TEXTS.values()]


def task_law(name: str, *, says: str, cause: str, hook: str) -> Callable[[Any], Any]:
    """Register the decorated function as the check of a law for tasks."""
    return law("tasks", name, says=says, cause=cause, hook=hook)


@task_law(
    "same rows",
    says="rows(view, split) gives the same rows at every call, and they are JSON",
    cause="a set or a shuffle without a seed, a list that is kept and given away, or a tuple or a "
    "date in a row",
    hook="rows",
)
def check_same_rows(subject: TaskSubject) -> None:
    """Compare the rows with those of a second call, and with those of another object."""
    other = build(subject.cls, subject.all_options)
    for view, split in subject.parts():
        rows = subject.rows(view, split)
        where = f"{view} of {split}"
        if not isinstance(rows, list) or not rows:
            raise Broken(f"rows of {where}: {type(rows).__name__}, not a list with rows")
        kept = json.dumps(rows)
        if json.loads(kept) != rows:
            raise Broken(f"rows of {where} are others once they are written as JSON and read")
        if other.rows(view, split) != rows:
            raise Broken(f"rows of {where} differ in another object of the task")
        rows[0]["check"] = True  # as a caller may, with rows of its own
        del rows[1:2]
        subject.known[view, split] = json.loads(kept)
        if subject.plugin.rows(view, split) != subject.known[view, split]:
            raise Broken(f"rows of {where} differ in a second call, after the first ones changed")


@task_law(
    "splits",
    says="a prompt is in one split alone, whatever the view",
    cause="a split by the number of the row or by a shuffle, while prompts stand there twice; "
    "decide by a hash of the prompt",
    hook="rows",
)
def check_splits(subject: TaskSubject) -> None:
    """Compare the prompts of each two splits."""
    found: dict[str, dict[str, str]] = {split: {} for split in subject.splits}
    for view, split in subject.parts():
        for prompt in map(prompt_of(view), subject.rows(view, split)):
            if prompt is not None:
                found[split].setdefault(prompt, view)
    for i, split in enumerate(subject.splits):
        for other in subject.splits[:i]:
            shared = found[split].keys() & found[other].keys()
            if shared:
                first = min(shared)
                views = f"{found[other][first]} of {other} and {found[split][first]} of {split}"
                raise Broken(f"{len(shared)} prompts are in {views}: {first[:100]}")


def prompt_of(view: str) -> Callable[[Row], str | None]:
    """Return a function that returns the prompt of a row, None if it has none."""
    kind = VIEWS.get(view)

    def read(row: Row) -> str | None:
        prompt = row.get("prompt") if kind is None else kind.prompt(kind.canonical(row))
        return None if prompt is None else json.dumps(prompt)

    return read


@task_law(
    "views",
    says="each view that the task states has its columns, and any other is refused",
    cause="a name that is misspelt in `views`, a column of another name, or a last `else` that "
    "serves every view",
    hook="rows",
)
def check_stated_views(subject: TaskSubject) -> None:
    """Read rows as an algorithm does, and ask for views and splits that there are not."""
    task = subject.plugin
    for view, split in subject.parts():
        for row in subject.rows(view, split)[:READ_ROWS] if view in VIEWS else []:
            VIEWS[view].canonical(row)
    unknown = {"no-such-view", *VIEWS} - set(task.views)
    asked = [(view, "train") for view in sorted(unknown)] + [(task.views[0], "no-such-split")]
    for view, split in asked:
        try:
            task.rows(view, split)
        except Exception:
            continue
        raise Broken(f"rows({view!r}, {split!r}) are not refused")


@task_law(
    "scores",
    says="every text has a score from worst to best, always the same, and the row stays as it is",
    cause="text.split()[0], an empty mean, int() of thousands of digits, or row.pop(...)",
    hook="score",
)
def check_scores_of_texts(subject: TaskSubject) -> None:
    """Score odd completions of some rows of each split."""
    task = subject.plugin
    rows = subject.scored_rows()
    low, high = sorted((task.worst, task.best))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise Broken(f"the worst score is {task.worst}, and the best one {task.best}")
    for row in rows:
        for what, text in ODD_TEXTS.items():
            given = deepcopy(row)
            score = call(what, task.score, given, text)
            if not isinstance(score, int | float) or not low <= score <= high:
                raise Broken(f"{what}: a score of {score!r}, which is not in [{low}, {high}]")
            if score != call(what, task.score, given, text):
                raise Broken(f"{what}: another score the second time")
            if given != row:
                raise Broken("the score changes the row")


@task_law(
    "best answers",
    says="the answers that the task demonstrates score better than empty ones, on average",
    cause="a score with the wrong sign, or one that reads another column than the rows have",
    hook="score",
)
def check_best_answers(subject: TaskSubject) -> None:
    """Compare the mean scores of demonstrations, or of chosen completions, with those of \"\"."""
    task = subject.plugin
    view = next((v for v in ("demonstrations", "preferences") if v in task.views), None)
    if view is None or not hasattr(task, "score"):
        raise NotApplicable("the task has no answers that are good, or no score")
    column = "completion" if view == "demonstrations" else "chosen"
    rows = [VIEWS[view].canonical(row) for row in subject.rows(view, "train")[:ANSWERED_ROWS]]
    known = [task.score(row, text_of(row[column])) for row in rows]
    empty = [task.score(row, "") for row in rows]
    sign = math.copysign(1.0, task.best - task.worst)
    if not sign * sum(known) > sign * sum(empty):
        raise Broken(
            f"{view} have a mean score of {sum(known) / len(rows):.3g}, and empty completions one "
            f"of {sum(empty) / len(rows):.3g}"
        )


def text_of(content: Any) -> str:
    """Return a completion as text."""
    return content if isinstance(content, str) else content[-1]["content"]


@task_law(
    "measures",
    says="every text has measures, finite numbers by name, always the same",
    cause="a division by the number of words, or None for what does not apply: leave it out",
    hook="measures",
)
def check_measures(subject: TaskSubject) -> None:
    """Measure odd completions of some rows of each split."""
    task = subject.plugin
    if not hasattr(task, "measures"):
        raise NotApplicable("the task has no measures")
    for row in subject.scored_rows():
        for what, text in ODD_TEXTS.items():
            found = call(what, task.measures, deepcopy(row), text)
            wrong = [
                (name, x)
                for name, x in found.items()
                if not (isinstance(name, str) and isinstance(x, int | float) and math.isfinite(x))
            ]
            if wrong:
                raise Broken(f"{what}: the measure {wrong[0][0]!r} is {wrong[0][1]!r}")
            if found != call(what, task.measures, deepcopy(row), text):
                raise Broken(f"{what}: other measures the second time")


@task_law(
    "answers",
    says="every text has a final answer that can be counted, or None, always the same",
    cause="a list as the answer, or a number that is read from a text without one",
    hook="answer",
)
def check_final_answers(subject: TaskSubject) -> None:
    """Read the answers of odd completions."""
    task = subject.plugin
    if not hasattr(task, "answer"):
        raise NotApplicable("the task reads no final answers")
    for what, text in ODD_TEXTS.items():
        one, two = call(what, task.answer, text), call(what, task.answer, text)
        if one != two or hash(one) != hash(two):
            raise Broken(f"{what}: the answer is {one!r}, and {two!r} the second time")


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives for an odd text; raise `Broken` if it raises."""
    try:
        return function(*arguments)
    except NotAvailable:
        raise
    except Exception as error:
        raise Broken(f"{what}: {type(error).__name__}: {error}") from error

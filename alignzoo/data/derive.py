"""A view that is missing but can be had from another one.

Each step takes canonical rows of one view and gives rows of the next. Rows carry the number they
had when they were read, so that a message about a derived row names the row in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from alignzoo.data.dialogue import Content, check_text, missing
from alignzoo.data.formats import Row
from alignzoo.data.report import count
from alignzoo.data.views import (
    Demonstrations,
    Feedback,
    Preferences,
    Prompts,
    Steps,
    Text,
    View,
)

Item = tuple[int, Row]  # row number from 1, canonical row


@dataclass(frozen=True)
class Step:
    """From the rows of one view to those of another; `says` is the sentence for the report."""

    source: type[View]
    target: type[View]
    make: Callable[[list[Item], int], list[Item]]
    says: str


@dataclass(frozen=True)
class Plan:
    """How to get a view: read `start` in these columns, then take the steps."""

    start: type[View]
    form: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    def run(self, items: list[Item], seed: int) -> tuple[list[Item], list[str]]:
        """The derived rows, and a sentence for each step."""
        said = []
        for step in self.steps:
            before, items = len(items), step.make(items, seed)
            made = f"{count(len(items), 'row')} from {before:,}"
            names = f"{step.target.name} derived from {step.source.name}"
            said.append(f"{names}: {step.says} ({made})")
        return items, said


def plan_for_columns(
    view: type[View], columns: Iterable[str], labelled: bool = False
) -> Plan | None:
    """A plan for a table with these columns, or None if the view cannot be had from it.

    `labelled` says that its labels are truth values. They tell which demonstrations are good
    ones, and to imitate the others would be wrong.
    """
    there = list(columns)
    names = aliases(there)
    known = {*there, *names}
    labelled = labelled and known.issuperset(Feedback.columns)

    def start(candidate: type[View]) -> Plan | None:
        if labelled and candidate.name == Demonstrations.name:
            return None
        form = next((form for form in candidate.forms if known.issuperset(form)), None)
        if form is None:
            return None
        renamed = {name: alias for name, alias in names.items() if name in form}
        return Plan(candidate, form, renamed)

    return _search(view, start)


def plan_for_views(view: type[View], views: Iterable[str]) -> Plan | None:
    """A plan for a task that has these views."""
    names = set(views)
    return _search(view, lambda candidate: Plan(candidate) if candidate.name in names else None)


def _search(view: type[View], start: Callable[[type[View]], Plan | None]) -> Plan | None:
    found = start(view)
    for step in STEPS:
        if found is None and step.target.name == view.name:
            before = _search(step.source, start)
            if before is not None:
                found = Plan(before.start, before.form, before.renamed, (*before.steps, step))
    return found


def _labelled(items: list[Item], seed: int) -> list[Item]:
    found = []
    for number, row in items:
        rest = _rest(row, "chosen", "rejected")
        found.append((number, {**rest, "completion": row["chosen"], "label": True}))
        found.append((number, {**rest, "completion": row["rejected"], "label": False}))
    # No two neighbours should give the pair away.
    Random(f"{seed}/feedback").shuffle(found)
    return found


def _chosen(items: list[Item], seed: int) -> list[Item]:
    return [
        (number, {**_rest(row, "chosen", "rejected"), "completion": row["chosen"]})
        for number, row in items
    ]


def _good(items: list[Item], seed: int) -> list[Item]:
    return [(number, _rest(row, "label")) for number, row in items if row["label"]]


def _prompts(items: list[Item], seed: int) -> list[Item]:
    return items  # a canonical row of these views has its prompt already


def _texts(items: list[Item], seed: int) -> list[Item]:
    return [
        (number, {**_rest(row, "prompt", "completion"), "text": _join(row)})
        for number, row in items
    ]


def _join(row: Row) -> Content:
    """Prompt and completion as one; canonical rows have both as text or both as messages."""
    return row["prompt"] + row["completion"]


def _rest(row: Row, *without: str) -> Row:
    return {name: value for name, value in row.items() if name not in without}


# For one target, the source that loses least comes first.
STEPS = (
    Step(Preferences, Feedback, _labelled, "each pair as two labelled completions, shuffled"),
    Step(Preferences, Demonstrations, _chosen, "the chosen completion of each pair"),
    Step(Feedback, Demonstrations, _good, "the completions with a true label"),
    Step(Preferences, Prompts, _prompts, "the prompt of each pair"),
    Step(Feedback, Prompts, _prompts, "the prompt of each labelled completion"),
    Step(Demonstrations, Prompts, _prompts, "the prompt of each demonstration"),
    Step(Steps, Prompts, _prompts, "the prompt of each solution"),
    Step(Demonstrations, Text, _texts, "the prompt and the completion of each demonstration"),
)


# Data sets of questions and instructions use these names; the first that is there is taken.
PROMPT = ("question", "instruction")
COMPLETION = ("answer", "response", "output")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The columns that have a value in some row, in the order in which they come up."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if name not in found and not missing(value):
                found[name] = None
    return list(found)


def aliases(columns: Iterable[str]) -> dict[str, str]:
    """Canonical name to the column that takes its place, where the canonical one is missing.

    Never beside `messages`, and no completion beside pairs: there the columns have a meaning.
    """
    there = set(columns)
    found: dict[str, str] = {}
    if there.isdisjoint({"prompt", "messages"}):
        _take(found, "prompt", PROMPT, there)
    if ("prompt" in there or found) and there.isdisjoint({"completion", "messages", "chosen"}):
        _take(found, "completion", COMPLETION, there)
    return found


def rename(row: Row, names: dict[str, str]) -> Row:
    """The row with the canonical names added; its own columns stay, for rewards to read.

    An `instruction` is followed by its `input`, where that says something.
    """
    new = {name: row[alias] for name, alias in names.items() if alias in row}
    more = row.get("input")
    if names.get("prompt") == "instruction" and "prompt" in new and not missing(more):
        question, context = check_text(new["prompt"], "prompt"), check_text(more, "input")
        new["prompt"] = f"{question}\n\n{context}" if context.strip() else question
    return {**row, **new}


def _take(found: dict[str, str], name: str, choices: Iterable[str], there: set[str]) -> None:
    alias = next((choice for choice in choices if choice in there), None)
    if alias:
        found[name] = alias

"""Derive a view that is missing from another one.

A derivation takes canonical rows of one view and makes rows of another. Rows keep the number they
had when they were read, so that a message about a derived row names the row in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from alignzoo.data.columns import find_aliases
from alignzoo.data.dialogue import Content
from alignzoo.data.formats import Row
from alignzoo.data.views import (
    Demonstrations,
    Feedback,
    Preferences,
    Prompts,
    Steps,
    Text,
    View,
)
from alignzoo.errors import count

Item = tuple[int, Row]  # row number from 1, canonical row


@dataclass(frozen=True)
class Derivation:
    """A function from rows of one view to rows of another, with a sentence for the report."""

    source: type[View]
    target: type[View]
    make: Callable[[list[Item], int], list[Item]]
    sentence: str


@dataclass(frozen=True)
class Plan:
    """A way to obtain a view: read `start` in these columns, then apply the derivations."""

    start: type[View]
    form: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    derivations: tuple[Derivation, ...] = ()

    def run(self, items: list[Item], seed: int) -> tuple[list[Item], list[str]]:
        """Return the derived rows, and a sentence for each derivation."""
        sentences = []
        for step in self.derivations:
            before, items = len(items), step.make(items, seed)
            made = f"{count(len(items), 'row')} from {before:,}"
            names = f"{step.target.name} derived from {step.source.name}"
            sentences.append(f"{names}: {step.sentence} ({made})")
        return items, sentences


def plan_for_columns(
    view: type[View], columns: Iterable[str], labelled: bool = False
) -> Plan | None:
    """Plan how to obtain a view from a table with these columns; None if that is impossible.

    `labelled` says that its labels are true or false. Demonstrations are then those with a true
    label, because the others should not be imitated.
    """
    there = list(columns)
    names = find_aliases(there)
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
    """Plan how to obtain a view from a task that has these views; None if that is impossible."""
    names = set(views)
    return _search(view, lambda candidate: Plan(candidate) if candidate.name in names else None)


def _search(view: type[View], start: Callable[[type[View]], Plan | None]) -> Plan | None:
    found = start(view)
    for step in DERIVATIONS:
        if found is None and step.target.name == view.name:
            before = _search(step.source, start)
            if before is not None:
                found = Plan(before.start, before.form, before.renamed, (*before.derivations, step))
    return found


def _label_completions(items: list[Item], seed: int) -> list[Item]:
    found = []
    for number, row in items:
        rest = _rest(row, "chosen", "rejected")
        found.append((number, {**rest, "completion": row["chosen"], "label": True}))
        found.append((number, {**rest, "completion": row["rejected"], "label": False}))
    # Shuffled, so that the two of a pair are not neighbours.
    Random(f"{seed}/feedback").shuffle(found)
    return found


def _take_chosen(items: list[Item], seed: int) -> list[Item]:
    return [
        (number, {**_rest(row, "chosen", "rejected"), "completion": row["chosen"]})
        for number, row in items
    ]


def _take_good(items: list[Item], seed: int) -> list[Item]:
    return [(number, _rest(row, "label")) for number, row in items if row["label"]]


def _take_prompts(items: list[Item], seed: int) -> list[Item]:
    return items  # a canonical row of these views has its prompt already


def _make_texts(items: list[Item], seed: int) -> list[Item]:
    return [
        (number, {**_rest(row, "prompt", "completion"), "text": _join(row)})
        for number, row in items
    ]


def _join(row: Row) -> Content:
    """Concatenate prompt and completion, which canonical rows have in the same form."""
    return row["prompt"] + row["completion"]


def _rest(row: Row, *without: str) -> Row:
    return {name: value for name, value in row.items() if name not in without}


# For one target, the source that loses least comes first.
DERIVATIONS = (
    Derivation(
        Preferences, Feedback, _label_completions, "each pair as two labelled completions, shuffled"
    ),
    Derivation(Preferences, Demonstrations, _take_chosen, "the chosen completion of each pair"),
    Derivation(Feedback, Demonstrations, _take_good, "the completions with a true label"),
    Derivation(Preferences, Prompts, _take_prompts, "the prompt of each pair"),
    Derivation(Feedback, Prompts, _take_prompts, "the prompt of each labelled completion"),
    Derivation(Demonstrations, Prompts, _take_prompts, "the prompt of each demonstration"),
    Derivation(Steps, Prompts, _take_prompts, "the prompt of each solution"),
    Derivation(
        Demonstrations, Text, _make_texts, "the prompt and the completion of each demonstration"
    ),
)

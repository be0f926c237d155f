"""Which columns a table has, and which other names of theirs are understood."""

from __future__ import annotations

from collections.abc import Iterable

from alignzoo.data.dialogue import check_text, missing
from alignzoo.data.formats import Row

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

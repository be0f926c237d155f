"""Which examples are held out, and the prompts that they ask."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

from alignzoo.batch import Example
from alignzoo.data.formats import Row
from alignzoo.data.report import Report, count
from alignzoo.data.views import View
from alignzoo.errors import BadInput


def split(
    view: type[View], examples: list[Example], holdout: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Examples to learn from and held-out ones, which share no prompt.

    As many are held out as were asked for, but at most a tenth, and none of fewer than ten. Whole
    groups of one prompt are drawn as long as they fit; if none does, the smallest one is taken.
    """
    wanted = min(holdout, len(examples) // 10)
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(_key(view, example.row), []).append(index)
    if wanted < 1 or len(groups) < 2:
        return examples, []
    order = list(groups.values())
    Random(f"{seed}/holdout").shuffle(order)
    held: set[int] = set()
    for group in order:
        if len(held) + len(group) <= wanted:
            held.update(group)
    if not held:
        smallest = min(order, key=len)
        held.update(smallest)
    train = [example for index, example in enumerate(examples) if index not in held]
    return train, [examples[index] for index in sorted(held)]


def _key(view: type[View], row: Row) -> str:
    """What two rows share when they are about the same prompt; a plain text is one of its own."""
    prompt = view.prompt(row)
    return json.dumps(row["text"] if prompt is None else prompt, sort_keys=True, default=str)


def unasked(
    view: type[View], train: list[Example], test: list[Example], report: Report
) -> list[Example]:
    """Those of `train` whose prompt none of `test` has, however it is written; the others noted."""
    held = {_words(view, example.row) for example in test}
    kept = [example for example in train if _words(view, example.row) not in held]
    if train and not kept:
        raise BadInput(
            "nothing is left to learn from, because every prompt is held out", where=report.source
        )
    if len(kept) < len(train):
        lost = count(len(train) - len(kept), "example")
        report.notes.append(f"{lost} not learnt, because the prompt is held out")
    return kept


def _words(view: type[View], row: Row) -> str:
    """What a prompt says, be it text or messages; of a plain text, all of it."""
    prompt = view.prompt(row)
    content = row["text"] if prompt is None else prompt
    parts = [content] if isinstance(content, str) else [m["content"] for m in content]
    return "\n".join(parts).strip()


def prompts_in(view: type[View], rows: Iterable[Row]) -> list[Row]:
    """Canonical rows in prompt form, each prompt once; plain texts have none."""
    found: dict[str, Row] = {}
    for row in rows:
        prompt = view.prompt(row)
        if prompt:
            found.setdefault(_key(view, row), {**row, "prompt": prompt})
    return list(found.values())

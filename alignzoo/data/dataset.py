"""The training and held-out examples of one source or of several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, compress
from random import Random

from alignzoo.batch import Example
from alignzoo.data.dialogue import Content
from alignzoo.data.formats import Row
from alignzoo.data.order import EpochOrder, MixtureOrder
from alignzoo.data.report import Report
from alignzoo.data.views import View
from alignzoo.errors import BadInput, count

# The kind of feedback in the ledger for the rows of a view.
FEEDBACK_KINDS = {
    "demonstrations": "demonstrations",
    "preferences": "pairs",
    "feedback": "labels",
    "steps": "labels",
}


@dataclass(frozen=True)
class SourceSize:
    """The rows of one source of several in `train` and `test`, which hold source after source.

    `draws` of its training rows make up its part of an epoch.
    """

    name: str
    train: int
    test: int
    draws: int


@dataclass
class Data:
    """Training and held-out examples, with a report on the rows.

    `prompts` are the held-out rows in prompt form, each prompt once: `prompt` and the row's other
    columns. `fingerprint` is the SHA-256 of all rows as they were read; of several sources, of
    their fingerprints and weights. `sources` is empty unless there are several.
    """

    train: list[Example]
    test: list[Example]
    report: Report
    fingerprint: str
    prompts: list[Row]
    sources: list[SourceSize] = field(default_factory=list)

    def order(self, batch_size: int, seed: int) -> EpochOrder:
        """Return the order in which batches take the rows of `train`."""
        if all(source.draws == source.train for source in self.sources):
            return EpochOrder(len(self.train), batch_size, seed)
        sizes, draws = ([s.train for s in self.sources], [s.draws for s in self.sources])
        return MixtureOrder(sizes, draws, batch_size, seed)

    def held_out_of(self, source: SourceSize) -> slice:
        """Return where the held-out rows of that source are in `test`."""
        start = sum(s.test for s in self.sources[: self.sources.index(source)])
        return slice(start, start + source.test)

    def limit_feedback(self, amount: float, seed: int) -> None:
        """Keep training rows drawn at random, with at most `amount` pieces of feedback in all.

        Raise `BadInput` for a mixture, whose weights would change, or if no row is left.
        """
        where = self.report.source
        if self.sources:
            raise BadInput("a budget of feedback cannot be divided among data sets", where=where)
        order = list(range(len(self.train)))
        Random(f"{seed}/feedback").shuffle(order)
        total = accumulate(count_feedback(self.train[i]) for i in order)
        kept = sorted(index for index, used in zip(order, total, strict=True) if used <= amount)
        if not kept:
            raise BadInput(f"the budget of {amount:g} is less than one row has", where=where)
        if len(kept) < len(self.train):
            rows = count(len(self.train), "row")
            self.report.notes.append(f"{len(kept):,} of {rows} used: the budget of feedback")
        self.train = [self.train[i] for i in kept]

    def need_both_labels(self) -> None:
        """Raise `BadInput` if all labels of the completions, or of the steps, are equal."""
        labels = {label for example in self.train for label in labels_in(example)}
        if len(labels) == 1:
            only = labels.pop()
            steps = "labels" in self.train[0].columns
            column, noun = ("labels", "steps") if steps else ("label", "completions")
            instead = "; to imitate good ones only: alignzoo run sft" if only else ""
            raise BadInput(
                f"column {column!r} is {str(only).lower()} in all "
                f"{count(len(self.train), 'row')}: nothing to contrast",
                where=self.report.source,
                hint=f"add {noun} labelled {str(not only).lower()}{instead}",
            )


def count_feedback(example: Example) -> int:
    """Return the pieces of feedback in an example: 1, or the number of its labelled steps."""
    return len(labels_in(example)) or 1


def labels_in(example: Example) -> list[bool]:
    """Return the labels of an example, if any: of its completion, or of each of its steps."""
    if "labels" not in example.columns:
        return list(example.columns.get("label", []))
    assert example.masks is not None
    return list(compress(example.columns["labels"][0], example.masks[0]))


def hold_out(
    view: type[View], examples: list[Example], holdout: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split into training and held-out examples, which share no prompt.

    `holdout` are held out, but at most a tenth, and none of fewer than ten. Whole groups of one
    prompt are drawn as long as they fit; if none does, the smallest one is taken.
    """
    wanted = min(holdout, len(examples) // 10)
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(_prompt_key(view, example.row), []).append(index)
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


def drop_held_out_prompts(
    view: type[View], train: list[Example], test: list[Example], report: Report
) -> list[Example]:
    """Return the training examples whose prompt is not held out, as text or as messages.

    Note the number of dropped ones in the report; raise `BadInput` if none is left.
    """
    held = {_prompt_text(view, example.row) for example in test}
    kept = [example for example in train if _prompt_text(view, example.row) not in held]
    if train and not kept:
        raise BadInput("no training rows left: every prompt is held out", where=report.source)
    if len(kept) < len(train):
        dropped = count(len(train) - len(kept), "example")
        report.notes.append(f"{dropped} dropped from training: the prompt is held out")
    return kept


def unique_prompts(view: type[View], rows: Iterable[Row]) -> list[Row]:
    """Return canonical rows in prompt form, each prompt once; plain texts have none."""
    found: dict[str, Row] = {}
    for row in rows:
        prompt = view.prompt(row)
        if prompt:
            found.setdefault(_prompt_key(view, row), {**row, "prompt": prompt})
    return list(found.values())


def _prompt_key(view: type[View], row: Row) -> str:
    """Return a key that rows with the same prompt share."""
    return json.dumps(_prompt_or_text(view, row), sort_keys=True, default=str)


def _prompt_text(view: type[View], row: Row) -> str:
    """Return the words of the prompt, be it text or messages."""
    content = _prompt_or_text(view, row)
    parts = [content] if isinstance(content, str) else [m["content"] for m in content]
    return "\n".join(parts).strip()


def _prompt_or_text(view: type[View], row: Row) -> Content:
    """Return the prompt; a plain text, which has none, stands for itself."""
    prompt = view.prompt(row)
    return row["text"] if prompt is None else prompt

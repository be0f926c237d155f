"""What is learnt from and what is held out, of one source or of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress

from alignzoo.batch import Example
from alignzoo.data.formats import Row
from alignzoo.data.order import MixedOrder, Order
from alignzoo.data.report import Report, count
from alignzoo.errors import BadInput


@dataclass(frozen=True)
class Share:
    """One source of several: its rows in `train` and `test`, which hold source after source, and
    how many of the former are drawn in an epoch."""

    name: str
    train: int
    test: int
    draws: int


@dataclass
class Data:
    """Examples to learn from and held-out ones, with an account of the rows.

    `prompts` are the held-out rows in prompt form, each prompt once: `prompt` and the row's other
    columns. `fingerprint` is the SHA-256 of all rows as they were read; of several sources, of
    theirs and their weights. `shares` are the sources where there are several.
    """

    train: list[Example]
    test: list[Example]
    report: Report
    fingerprint: str
    prompts: list[Row]
    shares: list[Share] = field(default_factory=list)

    def order(self, batch_size: int, seed: int) -> Order:
        """Which rows of `train` make up the batch of a step."""
        if all(share.draws == share.train for share in self.shares):
            return Order(len(self.train), batch_size, seed)
        sizes, draws = ([s.train for s in self.shares], [s.draws for s in self.shares])
        return MixedOrder(sizes, draws, batch_size, seed)

    def held_out_of(self, share: Share) -> slice:
        """Where the held-out rows of that source stand in `test`."""
        start = sum(s.test for s in self.shares[: self.shares.index(share)])
        return slice(start, start + share.test)

    def need_both_labels(self) -> None:
        """`BadInput` where every label of the feedback, or of the steps, says the same."""
        labels = {label for example in self.train for label in labels_in(example)}
        if len(labels) == 1:
            only = labels.pop()
            steps = "labels" in self.train[0].columns
            column, what = ("labels", "steps") if steps else ("label", "completions")
            instead = "; to imitate good ones alone: alignzoo run sft" if only else ""
            raise BadInput(
                f"column {column!r} is {str(only).lower()} in all "
                f"{count(len(self.train), 'row')}, so there is nothing to tell apart",
                where=self.report.source,
                hint=f"add {what} that were found {'bad' if only else 'good'}{instead}",
            )


def labels_in(example: Example) -> list[bool]:
    """Its labels, if any: of its completion, or of steps those of the tokens at which they end."""
    if "labels" not in example.columns:
        return list(example.columns.get("label", []))
    assert example.masks is not None
    return list(compress(example.columns["labels"][0], example.masks[0]))

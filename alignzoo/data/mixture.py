"""Several data sets as one: what is drawn of each, and what is held out of each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence

from alignzoo.data.dataset import Data, Share
from alignzoo.data.holdout import prompts_in, unasked
from alignzoo.data.names import Source
from alignzoo.data.order import apportion
from alignzoo.data.read import Table
from alignzoo.data.report import Report, count
from alignzoo.data.views import View
from alignzoo.errors import BadInput
from alignzoo.files import unused_name


def refuse_twice(sources: Sequence[Source], tables: Sequence[Table]) -> None:
    """`BadInput` where two of the sources read the same file."""
    readers: dict[str, int] = {}
    for index, (source, table) in enumerate(zip(sources, tables, strict=True)):
        for part in [*table.train, *table.test]:
            file = os.path.realpath(os.path.expanduser(part.name))
            first = readers.setdefault(file, index)
            if first != index:
                other = sources[first].name
                raise BadInput(
                    f"option --data: {part.name} is in it twice, by {other} and by {source.name}",
                    hint="to learn it more often than others, give it a larger weight",
                )


def holdouts(sources: Sequence[Source], tables: Sequence[Table], holdout: int) -> list[int]:
    """How many rows each source is to hold out, of `holdout` in all: one, and the rest by the
    weights, or without weights by the number of rows."""
    sizes = [sum(len(part.rows) for part in table.train) for table in tables]
    weights = [source.weight or size for source, size in zip(sources, sizes, strict=True)]
    each = int(holdout >= len(sources))
    return [each + more for more in apportion(holdout - each * len(sources), weights)]


def mixed(view: type[View], sources: Sequence[Source], loaded: Sequence[Data]) -> Data:
    """The sources as one, in their order. No prompt that one holds out is learnt from another.

    An epoch is as long as the rows to learn from are many, over all sources. The weights are the
    shares of the sources in it, to a row; without weights each row comes once, as it would from
    one file.
    """
    for one in loaded:
        others = [example for other in loaded if other is not one for example in other.test]
        one.train = unasked(view, one.train, others, one.report)
        one.report.train = len(one.train)
    shares = shares_of(sources, loaded)
    train = [example for one in loaded for example in one.train]
    test = [example for one in loaded for example in one.test]
    prompts = prompts_in(view, (example.row for example in test))
    parts = [[one.fingerprint, source.weight] for one, source in zip(loaded, sources, strict=True)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Data(train, test, report_of(sources, loaded, shares), digest, prompts, shares)


def shares_of(sources: Sequence[Source], loaded: Sequence[Data]) -> list[Share]:
    """What each source has and how much of an epoch it is."""
    sizes = [len(one.train) for one in loaded]
    draws = apportion(sum(sizes), [s.weight or n for s, n in zip(sources, sizes, strict=True)])
    for source, drawn in zip(sources, draws, strict=True):
        if drawn == 0:
            raise BadInput(
                f"option --data: a weight of {source.weight:g} among these is less than one "
                f"example of the {sum(sizes):,} of an epoch",
                where=source.name,
                hint="give it a larger weight, or leave it away",
            )
    names: list[str] = []
    for source in sources:
        names.append(unused_name(source.stem, lambda name: name in names))
    return [
        Share(name, len(one.train), len(one.test), drawn)
        for name, one, drawn in zip(names, loaded, draws, strict=True)
    ]


def report_of(sources: Sequence[Source], loaded: Sequence[Data], shares: Sequence[Share]) -> Report:
    """The account of all, with those of the sources as its parts."""
    reports = [one.report for one in loaded]
    total = sum(share.draws for share in shares)
    for source, share, report in zip(sources, shares, reports, strict=True):
        if source.weight is not None:
            report.notes.append(
                f"{share.draws / total:.3g} of an epoch, {count(share.draws, 'draw')} from "
                f"{count(share.train, 'example')}"
            )
    return Report(
        source=", ".join(source.name for source in sources),
        max_length=reports[0].max_length,
        read=sum(report.read for report in reports),
        train=sum(report.train for report in reports),
        test=sum(report.test for report in reports),
        parts=reports,
    )

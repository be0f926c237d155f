"""Mix several data sets: how much of each an epoch draws, and how much is held out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence

from alignzoo.data.dataset import Data, SourceSize, drop_held_out_prompts, unique_prompts
from alignzoo.data.names import DataSpec
from alignzoo.data.order import apportion
from alignzoo.data.read import Table
from alignzoo.data.report import Report
from alignzoo.data.views import View
from alignzoo.errors import BadInput, count
from alignzoo.files import unused_name


def refuse_duplicates(sources: Sequence[DataSpec], tables: Sequence[Table]) -> None:
    """Raise `BadInput` if two sources read the same file."""
    readers: dict[str, int] = {}
    for index, (source, table) in enumerate(zip(sources, tables, strict=True)):
        for part in [*table.train, *table.test]:
            file = os.path.realpath(os.path.expanduser(part.name))
            first = readers.setdefault(file, index)
            if first != index:
                other = sources[first].name
                raise BadInput(
                    f"option --data: {part.name} is read twice, by {other} and by {source.name}",
                    hint="to train on it more often than on others, give it a larger weight",
                )


def divide_holdout(sources: Sequence[DataSpec], tables: Sequence[Table], holdout: int) -> list[int]:
    """Divide the number of held-out rows among the sources.

    Each source gets one, and the rest is divided by the weights, or without weights by the number
    of rows.
    """
    sizes = [sum(len(part.rows) for part in table.train) for table in tables]
    weights = [source.weight or size for source, size in zip(sources, sizes, strict=True)]
    each = int(holdout >= len(sources))
    return [each + more for more in apportion(holdout - each * len(sources), weights)]


def mix(view: type[View], sources: Sequence[DataSpec], loaded: Sequence[Data]) -> Data:
    """Put the sources together, in their order; no prompt that one holds out is trained on.

    An epoch has as many rows as all sources have training rows. The weights are the fractions of
    the sources in it, to the row; without weights each row comes once, as from one file.
    """
    for one in loaded:
        others = [example for other in loaded if other is not one for example in other.test]
        one.train = drop_held_out_prompts(view, one.train, others, one.report)
        one.report.train = len(one.train)
    sizes = source_sizes(sources, loaded)
    train = [example for one in loaded for example in one.train]
    test = [example for one in loaded for example in one.test]
    prompts = unique_prompts(view, (example.row for example in test))
    parts = [[one.fingerprint, source.weight] for one, source in zip(loaded, sources, strict=True)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    report = merge_reports(sources, loaded, sizes)
    return Data(train, test, report, digest, prompts, sizes)


def source_sizes(sources: Sequence[DataSpec], loaded: Sequence[Data]) -> list[SourceSize]:
    """Return the number of rows of each source, and how many of them an epoch draws."""
    sizes = [len(one.train) for one in loaded]
    draws = apportion(sum(sizes), [s.weight or n for s, n in zip(sources, sizes, strict=True)])
    for source, drawn in zip(sources, draws, strict=True):
        if drawn == 0:
            raise BadInput(
                f"option --data: a weight of {source.weight:g} among these is less than one "
                f"of the {count(sum(sizes), 'example')} of an epoch",
                where=source.name,
                hint="give it a larger weight, or leave it out",
            )
    names: list[str] = []
    for source in sources:
        names.append(unused_name(source.stem, lambda name: name in names))
    return [
        SourceSize(name, len(one.train), len(one.test), drawn)
        for name, one, drawn in zip(names, loaded, draws, strict=True)
    ]


def merge_reports(
    sources: Sequence[DataSpec], loaded: Sequence[Data], sizes: Sequence[SourceSize]
) -> Report:
    """Return the report on all sources, with theirs as its parts."""
    reports = [one.report for one in loaded]
    total = sum(size.draws for size in sizes)
    for source, size, report in zip(sources, sizes, reports, strict=True):
        if source.weight is not None:
            report.notes.append(
                f"{size.draws / total:.3g} of an epoch, {count(size.draws, 'draw')} from "
                f"{count(size.train, 'example')}"
            )
    return Report(
        source=", ".join(source.name for source in sources),
        max_length=reports[0].max_length,
        read=sum(report.read for report in reports),
        train=sum(report.train for report in reports),
        test=sum(report.test for report in reports),
        parts=reports,
    )

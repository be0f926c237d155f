"""A judge on prompts, or completions, that people have given labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignzoo.data import Prompts, load_rows
from alignzoo.data.derive import columns_of
from alignzoo.data.read import read_rows
from alignzoo.data.values import is_missing
from alignzoo.errors import BadInput
from alignzoo.evaluation.evaluate import Evaluation
from alignzoo.evaluation.statistics import Estimate, mean_with_interval
from alignzoo.ui import UI
from alignzoo_judges.classify import Labelling, likeliest

MOST = 20  # labels; a column with more has something else in it
BOOLEANS = {"true": "yes", "false": "no"}


def labelled_rows(data: str, ui: UI) -> list[dict[str, Any]] | None:
    """The rows of a file that have a `prompt` and a `label`; None for a file of something else."""
    columns = columns_of(read_rows(data))
    if "label" not in columns or not {"chosen", "rejected"}.isdisjoint(columns):
        return None
    rows, report = load_rows(Prompts, data)
    for number, row in enumerate(rows, start=1):
        if is_missing(row.get("label")) or not str(row["label"]).strip():
            report.leave_out("it has no label", number)
    for line in [*report.notes, *report.reasons()]:
        ui.note(line)
    without = {number for numbers in report.left_out.values() for number in numbers}
    return [
        {**row, "label": spelled(row["label"])}
        for number, row in enumerate(rows, start=1)
        if number not in without
    ]


def spelled(label: Any) -> str:
    """A label as a judge would answer with it: true is yes, and false is no."""
    text = str(label).strip()
    return BOOLEANS.get(text.lower(), text)


def labels_of(rows: Sequence[dict[str, Any]], data: str | None) -> list[str]:
    """The labels that there are, each once, or `BadInput` where nothing is to be told apart."""
    labels = sorted({row["label"] for row in rows})
    if not 2 <= len(labels) <= MOST:
        raise BadInput(
            f"column 'label' has {len(labels)} different labels, not 2 to {MOST}", where=data
        )
    return labels


def judged_labels(
    given: Sequence[str], labels: Sequence[str], found: Sequence[Labelling]
) -> Evaluation:
    """What a judge makes of rows whose labels people have given, over those for which both orders
    were answered; with its agreement on each label alone."""
    pairs = [(label, each) for label, each in zip(given, found, strict=True) if each.usable]
    agreed = [(label, agreement(each, labels.index(label))) for label, each in pairs]
    summary = {
        "judge/rows": Estimate(len(found)),
        "judge/unusable": Estimate(len(found) - len(pairs)),
        "judge/agreement": mean([value for _, value in agreed]),
    }
    for name in labels:
        summary[f"judge/agreement/{name}"] = mean([v for label, v in agreed if label == name])
    summary |= {
        "judge/flips": mean([float(each.flips) for _, each in pairs]),
        "judge/first": mean([each.first for _, each in pairs]),
    }
    items: list[dict[str, Any]] = [
        {"item": i, "usable": each.usable, "label": label,
         "probabilities": dict(zip(labels, each.probabilities, strict=True)),
         "forth": each.forth, "back": each.back}
        for i, (label, each) in enumerate(zip(given, found, strict=True))
    ]  # fmt: skip
    return Evaluation(summary, items)


def agreement(found: Labelling, right: int) -> float:
    """1 where the given label is the likeliest, 0 where another is; 1/n of n like it."""
    best = likeliest(found.probabilities)
    return 1 / len(best) if right in best else 0.0


def mean(values: Sequence[float]) -> Estimate:
    return mean_with_interval(values) if values else Estimate(math.nan, n=0)

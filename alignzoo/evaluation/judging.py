"""How far a judge agrees with those who chose, and what leads it astray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignzoo import plugins
from alignzoo.data import Preferences, rows_of
from alignzoo.errors import BadInput
from alignzoo.evaluation.evaluate import Evaluation
from alignzoo.evaluation.statistics import Estimate, estimate
from alignzoo.judges import Comparison, Verdict, compare, judge_of
from alignzoo.judges.compare import written
from alignzoo.judges.numbers import agreement, correlation
from alignzoo.ui import UI


def evaluate_judge(
    judge: str,
    *,
    data: str | None,
    task: str | None,
    question: str,
    limit: int,
    trust_remote_code: bool,
    ui: UI,
) -> Evaluation:
    """A judge on the first pairs of a file, or on the held-out ones of a task."""
    found = plugins.load("tasks", task)() if task is not None else None
    if data is not None:
        rows, report = rows_of(Preferences, data)
        for line in [*report.notes, *report.reasons()]:
            ui.note(line)
    elif found is None or "preferences" not in found.views:
        raise BadInput(
            f"task {task!r} has no pairs" if task else "there are no pairs to judge",
            hint="name some with chosen and rejected: --data FILE",
        )
    else:
        rows = found.rows("preferences", "test")
    rows = rows[:limit]
    if not rows:
        raise BadInput("there are no pairs left to judge", where=data)
    with ui.phase(f"asking {judge}"):
        asked = judge_of(judge, task=found, trust_remote_code=trust_remote_code)
        pairs = [Comparison(row["prompt"], row["chosen"], row["rejected"], row) for row in rows]
        verdicts = compare(asked, pairs, question)
    return judged(pairs, verdicts)


def judged(pairs: Sequence[Comparison], verdicts: Sequence[Verdict]) -> Evaluation:
    """Of pairs whose first one was chosen: what the judge makes of them, over those for which both
    orders were answered.

    `judge/length` is the correlation of which one is longer (1, 0, -1) with P(it) - P(the other),
    each pair taken both ways, so that it does not matter which one was chosen.
    """
    usable = [(c, v) for c, v in zip(pairs, verdicts, strict=True) if v.usable]
    longer = [_sign(len(written(c.a)) - len(written(c.b))) for c, _ in usable]
    leaning = [v.label[0] - v.label[1] for _, v in usable]
    first = [(v.a_first[0] + v.b_first[0]) / 2 for _, v in usable]
    length = correlation([*longer, *(-x for x in longer)], [*leaning, *(-x for x in leaning)])
    unusable = len(verdicts) - len(usable)
    summary = {
        "judge/pairs": Estimate(len(verdicts)),
        "judge/unusable": Estimate(unusable),
        "judge/agreement": _mean([agreement(*v.label) for _, v in usable]),
        "judge/flips": _mean([float(v.flips) for _, v in usable]),
        "judge/first": _mean(first),
        "judge/length": Estimate(length, n=len(usable)),
    }
    items: list[dict[str, Any]] = [
        {"item": i, "usable": v.usable, "chosen": v.label[0], "a_first": v.a_first,
         "b_first": v.b_first}
        for i, v in enumerate(verdicts)
    ]  # fmt: skip
    return Evaluation(summary, items)


def _mean(values: Sequence[float]) -> Estimate:
    return estimate(values) if values else Estimate(math.nan, n=0)


def _sign(x: int) -> float:
    return float((x > 0) - (x < 0))

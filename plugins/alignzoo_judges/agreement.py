"""How far a judge agrees with those who chose, or who gave labels, and what leads it astray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo import discovery
from alignzoo.data import Preferences, load_rows
from alignzoo.errors import BadInput, RunFailed
from alignzoo.evaluation.evaluate import Evaluation
from alignzoo.evaluation.statistics import Estimate
from alignzoo.ledger import Ledger
from alignzoo.ui import UI
from alignzoo_judges import Comparison, Judge, Verdict, check_judge, classify, compare, judge_of
from alignzoo_judges.compare import written
from alignzoo_judges.labelling import judged_labels, labelled_rows, labels_of, mean
from alignzoo_judges.numbers import agreement, correlation


@dataclass(frozen=True)
class Asking:
    """How a judge is asked: by a question (None: the usual one), after how many tokens of thinking,
    and about how many rows."""

    question: str | None = None
    think: int = 0
    limit: int = 200


def evaluate_judge(
    judge: str,
    asking: Asking,
    *,
    data: str | None,
    task: str | None,
    trust_remote_code: bool,
    ui: UI,
) -> Evaluation:
    """A judge on the first pairs or labelled rows of a file, or on the held-out pairs of a task.

    `BadInput` where there is nothing to judge, `RunFailed` where the judge gave no usable answer.
    """
    check_judge(judge)  # before its name is shown anywhere
    found = discovery.load("tasks", task)() if task is not None else None
    labelled = labelled_rows(data, ui) if data is not None else None
    rows = (pairs_of(data, found, task, ui) if labelled is None else labelled)[: asking.limit]
    if not rows:
        raise BadInput("there is nothing left to judge", where=data)
    labels = labels_of(labelled, data) if labelled else None
    ledger = Ledger()
    with ui.phase(f"asking {judge}"):
        asked = judge_of(judge, task=found, ledger=ledger, trust_remote_code=trust_remote_code)
        result = on_labels(asked, asking, rows, labels) if labels else on_pairs(asked, asking, rows)
    unusable = int(result.summary["judge/unusable"].mean)
    if unusable == len(rows):
        options = ", ".join(labels or ("A", "B"))
        raise RunFailed(
            f"of {unusable} rows the judge answered none with one of the options: {options}",
            where=judge,
            hint="take one that follows instructions, put the --question in other words, or let it "
            "--think first",
        )
    result.summary |= spent(ledger)
    return result


def on_pairs(judge: Judge, asking: Asking, rows: Sequence[dict[str, Any]]) -> Evaluation:
    pairs = [Comparison(row["prompt"], row["chosen"], row["rejected"], row) for row in rows]
    question = {} if asking.question is None else {"question": asking.question}
    return judged(pairs, compare(judge, pairs, **question, think=asking.think))


def on_labels(
    judge: Judge, asking: Asking, rows: Sequence[dict[str, Any]], labels: Sequence[str]
) -> Evaluation:
    question = {} if asking.question is None else {"question": asking.question}
    found = classify(judge, rows, labels, **question, think=asking.think)
    return judged_labels([row["label"] for row in rows], labels, found)


def pairs_of(data: str | None, found: Any, task: str | None, ui: UI) -> list[dict[str, Any]]:
    """The pairs of a file, or the held-out ones of a task."""
    if data is not None:
        rows, report = load_rows(Preferences, data)
        for line in [*report.notes, *report.reasons()]:
            ui.note(line)
        return rows
    if found is None or "preferences" not in found.views:
        raise BadInput(
            f"task {task!r} has no pairs" if task else "there are no pairs to judge",
            hint="name some with chosen and rejected, or prompts with labels: --data FILE",
        )
    return list(found.rows("preferences", "test"))


def spent(ledger: Ledger) -> dict[str, Estimate]:
    """What the judge was asked, how much of it had to be answered, and what that took."""
    found = {
        "judge/calls": ledger.feedback["judge_calls"],
        "judge/cached": ledger.feedback["judge_cached"],
        "judge/retries": ledger.feedback["judge_retries"],
        "judge/tokens": ledger.tokens["judge"],
    }
    costs = {"judge/money": ledger.money} if ledger.money else {}
    return {name: Estimate(value) for name, value in {**found, **costs}.items()}


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
        "judge/agreement": mean([agreement(*v.label) for _, v in usable]),
        "judge/flips": mean([float(v.flips) for _, v in usable]),
        "judge/first": mean(first),
        "judge/length": Estimate(length, n=len(usable)),
    }
    items: list[dict[str, Any]] = [
        {"item": i, "usable": v.usable, "chosen": v.label[0], "a_first": v.a_first,
         "b_first": v.b_first}
        for i, v in enumerate(verdicts)
    ]  # fmt: skip
    return Evaluation(summary, items)


def _sign(x: int) -> float:
    return float((x > 0) - (x < 0))

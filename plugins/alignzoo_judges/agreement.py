"""How well a judge agrees with human preferences or labels, and how biased it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignzoo import load_task
from alignzoo.data import (
    Preferences,
    Prompts,
    columns_of,
    dev_split,
    is_missing,
    load_rows,
    read_rows,
    read_task_rows,
)
from alignzoo.errors import BadInput, RunFailed
from alignzoo.evaluation import Estimate, Evaluation, correlation, mean_with_interval
from alignzoo.ledger import Ledger
from alignzoo.ui import UI
from alignzoo_judges.classification import LABEL_QUESTION, Labelling, classify, most_likely
from alignzoo_judges.comparison import (
    COMPARISON_QUESTION,
    Comparison,
    Verdict,
    compare,
    format_content,
)
from alignzoo_judges.resolve import check_judge, resolve_judge

MAX_LABELS = 20  # a column with more holds something else
BOOLEANS = {"true": "yes", "false": "no"}


def evaluate_judge(
    judge: str,
    *,
    question: str | None,
    think: int,
    limit: int,
    data: str | None,
    task: str | None,
    trust_remote_code: bool,
    ui: UI,
) -> Evaluation:
    """Evaluate a judge on the first `limit` pairs or labelled rows of a file, or pairs of a task.

    `question` is None for the usual one; `think` is the most tokens of reasoning before an answer.
    Raise `BadInput` if there are no rows, `RunFailed` if the judge gave no usable answer.
    """
    check_judge(judge)  # before its name is shown anywhere
    loaded_task = load_task(task) if task is not None else None
    labelled = load_labelled(data, ui) if data is not None else None
    rows = load_pairs(data, loaded_task, task, ui) if labelled is None else labelled
    if not rows:
        raise BadInput("no rows to judge", where=data)
    labels = list_labels(labelled, data) if labelled else None
    rows = rows[:limit]
    ledger = Ledger()
    with ui.phase(f"asking {judge}"):
        resolved = resolve_judge(
            judge,
            task=loaded_task,
            ledger=ledger,
            trust_remote_code=trust_remote_code,
            note=ui.note,
        )
        if labels:
            text = LABEL_QUESTION if question is None else question
            labellings = classify(resolved, rows, labels, text, think=think)
            result = summarise_labels([row["label"] for row in rows], labels, labellings)
        else:
            pairs = [Comparison(row["prompt"], row["chosen"], row["rejected"], row) for row in rows]
            text = COMPARISON_QUESTION if question is None else question
            verdicts = compare(resolved, pairs, text, think=think)
            result = summarise_pairs(pairs, verdicts)
    if int(result.summary["judge/unusable"].mean) == len(rows):
        options = ", ".join(labels or ("A", "B"))
        raise RunFailed(
            f"the judge answered none of {len(rows)} rows with one of the options: {options}",
            where=judge,
            hint="use a model that follows instructions, rephrase the --question, or let it "
            "--think first",
        )
    result.summary |= summarise_costs(ledger)
    return result


def load_pairs(
    data: str | None, loaded_task: Any, task: str | None, ui: UI
) -> list[dict[str, Any]]:
    """Return the pairs of a file, or the held-out pairs of a task."""
    if data is not None:
        rows, report = load_rows(Preferences, data)
        for line in [*report.notes, *report.reasons()]:
            ui.note(line)
        return rows
    if loaded_task is None or "preferences" not in loaded_task.views:
        raise BadInput(
            f"task {task!r} has no pairs" if task else "no pairs to judge",
            hint="name pairs with chosen and rejected, or prompts with labels: --data FILE",
        )
    return read_task_rows(loaded_task, "preferences", dev_split(loaded_task))


def load_labelled(data: str, ui: UI) -> list[dict[str, Any]] | None:
    """Return the rows of a file with a `prompt` and a `label`, or None for any other file."""
    columns = columns_of(read_rows(data))
    if "label" not in columns or not {"chosen", "rejected"}.isdisjoint(columns):
        return None
    rows, report = load_rows(Prompts, data)
    for number, row in enumerate(rows, start=1):
        if is_missing(row.get("label")) or not str(row["label"]).strip():
            report.leave_out("it has no label", number)
    for line in [*report.notes, *report.reasons()]:
        ui.note(line)
    left_out = {number for numbers in report.left_out.values() for number in numbers}
    return [
        {**row, "label": format_label(row["label"])}
        for number, row in enumerate(rows, start=1)
        if number not in left_out
    ]


def format_label(label: Any) -> str:
    """Return a label as a judge would answer it: true becomes yes, and false becomes no."""
    text = str(label).strip()
    return BOOLEANS.get(text.lower(), text)


def list_labels(rows: Sequence[dict[str, Any]], data: str | None) -> list[str]:
    """Return the distinct labels, sorted; raise `BadInput` for fewer than 2 or too many."""
    labels = sorted({row["label"] for row in rows})
    if not 2 <= len(labels) <= MAX_LABELS:
        raise BadInput(
            f"column 'label' has {len(labels)} different labels, not 2 to {MAX_LABELS}", where=data
        )
    return labels


def summarise_pairs(pairs: Sequence[Comparison], verdicts: Sequence[Verdict]) -> Evaluation:
    """Summarise verdicts on pairs whose completion a was chosen, over those that are usable.

    `judge/length` is the correlation of which completion is longer (1, 0, -1) with P(it is better)
    - P(the other is). Each pair is taken both ways, so that it does not matter which was chosen.
    """
    usable = [(c, v) for c, v in zip(pairs, verdicts, strict=True) if v.usable]
    lengths = [(len(format_content(c.a)), len(format_content(c.b))) for c, _ in usable]
    longer = [float((a > b) - (a < b)) for a, b in lengths]
    margins = [v.label[0] - v.label[1] for _, v in usable]
    first = [(v.a_first[0] + v.b_first[0]) / 2 for _, v in usable]
    length = correlation([*longer, *(-x for x in longer)], [*margins, *(-x for x in margins)])
    summary = {
        "judge/pairs": Estimate(len(verdicts)),
        "judge/unusable": Estimate(len(verdicts) - len(usable)),
        "judge/agreement": estimate_mean([agreement_with_choice(*v.label) for _, v in usable]),
        "judge/flips": estimate_mean([float(v.flips) for _, v in usable]),
        "judge/first": estimate_mean(first),
        "judge/length": Estimate(length, n=len(usable)),
    }
    items: list[dict[str, Any]] = [
        {"item": i, "usable": v.usable, "chosen": v.label[0], "a_first": v.a_first,
         "b_first": v.b_first}
        for i, v in enumerate(verdicts)
    ]  # fmt: skip
    return Evaluation(summary, items)


def summarise_labels(
    given: Sequence[str], labels: Sequence[str], labellings: Sequence[Labelling]
) -> Evaluation:
    """Summarise labellings of rows with `given` labels, over all usable ones and per label."""
    usable = [(label, each) for label, each in zip(given, labellings, strict=True) if each.usable]
    agreed = [(label, agreement_with_label(each, labels.index(label))) for label, each in usable]
    summary = {
        "judge/rows": Estimate(len(labellings)),
        "judge/unusable": Estimate(len(labellings) - len(usable)),
        "judge/agreement": estimate_mean([value for _, value in agreed]),
    }
    for name in labels:
        summary[f"judge/agreement/{name}"] = estimate_mean(
            [value for label, value in agreed if label == name]
        )
    summary |= {
        "judge/flips": estimate_mean([float(each.flips) for _, each in usable]),
        "judge/first": estimate_mean([each.first for _, each in usable]),
    }
    items: list[dict[str, Any]] = [
        {"item": i, "usable": each.usable, "label": label,
         "probabilities": dict(zip(labels, each.probabilities, strict=True)),
         "forth": each.forth, "back": each.back}
        for i, (label, each) in enumerate(zip(given, labellings, strict=True))
    ]  # fmt: skip
    return Evaluation(summary, items)


def summarise_costs(ledger: Ledger) -> dict[str, Estimate]:
    """Return the calls, tokens and price, and how much of them the cache has saved."""
    counts = {
        "judge/calls": ledger.feedback["judge_calls"],
        "judge/cached": ledger.saved["judge_calls"],
        "judge/retries": ledger.feedback["judge_retries"],
        "judge/tokens": ledger.tokens["judge"],
        "judge/tokens/saved": ledger.saved["tokens"],
    }
    price = {"judge/money": ledger.money, "judge/money/saved": ledger.saved["money"]}
    if not ledger.money:
        price = {}
    return {name: Estimate(value) for name, value in {**counts, **price}.items()}


def agreement_with_choice(chosen: float, rejected: float) -> float:
    """Return 1 if the chosen completion is preferred, 0 if the rejected one is, 1/2 for a tie."""
    return 0.5 if chosen == rejected else float(chosen > rejected)


def agreement_with_label(labelling: Labelling, label: int) -> float:
    """Return 1 if the label is the most likely one, 0 if not, 1/n if it is tied with n - 1 more."""
    best = most_likely(labelling.probabilities)
    return 1 / len(best) if label in best else 0.0


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Return the mean with its interval, NaN for no values."""
    return mean_with_interval(values) if values else Estimate(math.nan, n=0)

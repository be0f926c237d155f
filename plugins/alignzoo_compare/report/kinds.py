"""The kinds of feedback that entries learn from: what a user must have to use them."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo_compare.board import Row
from alignzoo_compare.grid import BASE, CHOSEN, Settings

CONTROL = "control"
NOTHING = "nothing"
# By the name in the ledger. Of equal amounts the first counts.
KINDS = {
    "judge_calls": "judge",
    "verifier_calls": "score",
    "labels": "labels",
    "pairs": "pairs",
    "demonstrations": "demonstrations",
}
MEANINGS = {
    "judge": "a model that compares or rates answers",
    "score": "a reward or verifier that scores any answer",
    "labels": "answers marked as good or bad",
    "pairs": "a better and a worse answer to each prompt",
    "demonstrations": "good answers to imitate",
    NOTHING: "prompts alone",
}


def kind_of(entry: str, settings: Settings, rows: Sequence[Row]) -> str:
    """Return the kind of feedback that most of an entry's feedback was, by its ledgers.

    The base and runs with a random reward are controls. `sft` on the chosen side needs pairs.
    """
    if entry == BASE or settings.get("reward") == ["random"]:
        return CONTROL
    if settings.get("data") == CHOSEN:
        return KINDS["pairs"]
    amounts = {name: sum(row["ledger"]["feedback"].get(name, 0) for row in rows) for name in KINDS}
    most = max(amounts, key=lambda name: amounts[name])
    return KINDS[most] if amounts[most] else NOTHING

"""Triples: a pair of completions, and a third one to imitate."""

from __future__ import annotations

from typing import Any

from alignzoo import Preferences
from alignzoo.data import BadValue, UnusableRow, is_missing

GOLD = "reference"  # the column's name in TRL and in the authors' code


class Triples(Preferences):
    """Pairs with a column `reference`, the completion to imitate; without one, it is `chosen`."""

    columns = (*Preferences.columns, GOLD)
    optional = (*Preferences.optional, GOLD)
    answers = (*Preferences.answers, GOLD)

    @classmethod
    def canonical(cls, row: dict[str, Any]) -> dict[str, Any]:
        pair = super().canonical(row)
        gold = row.get(GOLD)
        if is_missing(gold):
            return {**pair, GOLD: pair["chosen"]}
        if {type(gold), type(row["chosen"])} == {str, list}:
            raise BadValue(GOLD, "one of chosen and reference is text, the other messages")
        if isinstance(gold, str) and is_missing(row.get("prompt")):
            if not gold.startswith(pair["prompt"]):
                raise BadValue(
                    GOLD,
                    f"it does not begin with the prompt that the others share: {pair['prompt']!r}",
                    hint="give the prompt in a column 'prompt'",
                )
            return {**pair, GOLD: gold.removeprefix(pair["prompt"])}
        try:
            other = super().canonical({**row, "chosen": gold})
        except BadValue as error:
            raise BadValue(GOLD, error.problem, hint=error.hint) from None
        except UnusableRow as reason:
            raise UnusableRow(f"with 'reference' in the place of 'chosen': {reason}") from None
        if other["prompt"] != pair["prompt"]:
            raise UnusableRow("'reference' answers another prompt than 'chosen'")
        return {**pair, GOLD: other["chosen"]}

"""The reward function of the comparison of GRPO, in the form that both libraries accept."""

from __future__ import annotations

from typing import Any


def sevens(completions: list[str], **_: Any) -> list[float]:
    """Return for each completion the number of words that end in 7, divided by 64."""
    return [sum(word.endswith("7") for word in text.split()) / 64 for text in completions]

"""What both libraries reward in the comparison of GRPO, in the form that both take."""

from __future__ import annotations

from typing import Any


def sevens(completions: list[str], **_: Any) -> list[float]:
    """How many of the words end in a 7, of 64."""
    return [sum(word.endswith("7") for word in text.split()) / 64 for text in completions]

"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing about this machine.

    Attributes:
        level: "ok"; "note" for what limits what can be done; "problem" for what does not work.
        subject: what it is about, one or two words.
        text: what was found.
        advice: what to do; "" if there is nothing to do.
    """

    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    advice: str = ""

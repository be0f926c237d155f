"""The two ways in which a run can end badly, and the words for them.

`BadInput` is the user's to mend: it says what is wrong, where, and what to do, and ends the
command with exit code 2 and no traceback. `RunFailed` is trouble while running: exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlignzooError(Exception):
    """Base of the errors that are shown as one message, without a traceback."""

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, hint: str | None = None):
        self.problem, self.where, self.hint = problem, where, hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """`where: problem` on one line, and the hint on the next."""
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{text}\n  {self.hint}" if self.hint else text


class BadInput(AlignzooError):
    """Something that was typed or handed in is wrong; nothing has been changed on disk."""

    exit_code = 2


class RunFailed(AlignzooError):
    """The run met trouble that its input alone does not explain (a NaN loss, a failing plugin)."""

    exit_code = 1


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one if there is one, then all of them."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known) or "none"
    return f"did you mean {close[0]!r}? Known: {listing}." if close else f"Known: {listing}."

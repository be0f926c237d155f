"""What each person is shown next, and what becomes of the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from threading import RLock
from typing import Any
from uuid import uuid4

from alignzoo.data import Content
from alignzoo_label.answers import AnswerFile, Row, answer_row, columns_in, shown_in, verdict_of
from alignzoo_label.candidates import Candidates
from alignzoo_label.choice import Choice
from alignzoo_label.source import Source

VERDICTS = {
    "pairs": ("left", "right", "tie", "both-bad", "skip"),
    "ratings": ("bad", "good", "skip"),
}
REPEATABLE = ("left", "right", "tie", "both-bad")


@dataclass(frozen=True)
class Showing:
    """What one person has before them.

    Attributes:
        id: the name that its answer will have, so that it counts once.
        item: the digest of the candidates.
        prompt: text, or messages.
        shown: the completions, from left to right.
        columns: other columns that belong to the prompt.
        repeats: the id of the earlier answer that it repeats with sides swapped, or None.
    """

    id: str
    item: str
    prompt: Content
    shown: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    repeats: str | None = None


class Session:
    """Who sees what. All methods may be called by several threads at once.

    Every prompt is for whoever comes first: what one person has answered, or is looking at, is not
    shown to another. A part `repeat` of a person's pairs comes back with its sides swapped.
    """

    def __init__(
        self, answers: AnswerFile, source: Source, choice: Choice, *, repeat: float, seed: int
    ):
        self.answers, self.source, self.choice = answers, source, choice
        self.repeat, self.seed = repeat, seed
        self._lock = RLock()
        self._current: dict[str, Showing] = {}
        self._undone: dict[str, deque[Showing]] = {}
        self.choice.learn(answers.rows(), source.made)

    @property
    def mode(self) -> str:
        """Return `pairs` or `ratings`."""
        return self.answers.mode

    def current(self, who: str) -> Showing | None:
        """Return what a person sees now, the same until it is answered.

        None if there is nothing yet, or, once `source.done`, nothing left.
        """
        with self._lock:
            if who not in self._current:
                showing = self._next(who)
                if showing is None:
                    return None
                self._current[who] = showing
            return self._current[who]

    def answer(self, who: str, id: str, verdict: str, note: str = "") -> bool:
        """Write an answer to the disk; return False if it was given already, in another tab.

        Raise `ValueError` for a verdict that there is not.
        """
        if verdict not in VERDICTS[self.mode]:
            raise ValueError(verdict)
        with self._lock:
            showing = self._current.get(who)
            if showing is None or showing.id != id:
                return False
            row, trains = answer_row(
                id=id,
                item=showing.item,
                who=who,
                seed=self.seed,
                prompt=showing.prompt,
                shown=showing.shown,
                verdict=verdict,
                note=note,
                repeats=showing.repeats,
                columns=showing.columns,
            )
            self.answers.append(row, trains=trains)
            del self._current[who]
            self.choice.learn(self.answers.rows(), self.source.made)
            return True

    def undo(self, who: str) -> bool:
        """Take back a person's last answer and show it again; return False if there is none."""
        with self._lock:
            row = self.answers.undo(who)
            if row is None:
                return False
            waiting = self._undone.setdefault(who, deque())
            if who in self._current:
                waiting.appendleft(self._current.pop(who))
            waiting.appendleft(showing_of(row))
            return True

    def total(self) -> int:
        """Return the number of prompts, as far as they are known by now."""
        return len(self.source.made)

    def answered(self) -> int:
        """Return how many of these prompts have an answer, by anybody."""
        done = {row["item"] for row in self.answers.rows()}
        return sum(one.key in done for one in list(self.source.made))

    def _next(self, who: str) -> Showing | None:
        undone = self._undone.get(who)
        if undone:
            return undone.popleft()
        rows = self.answers.rows()
        return self._repeat(who, rows) or self._fresh(rows)

    def _repeat(self, who: str, rows: Sequence[Row]) -> Showing | None:
        """Return an earlier pair of a person with its sides swapped, if it is time for one."""
        own = [row for row in rows if row["who"] == who]
        first = [row for row in own if "repeats" not in row]
        repeats = {row["repeats"] for row in own if "repeats" in row}
        if self.mode != "pairs" or len(repeats) >= int(self.repeat * len(first)):
            return None
        # Not the one that was seen last, if there are others.
        eligible = [
            row
            for row in first[: max(1, len(first) - 1)]
            if verdict_of(row) in REPEATABLE and row["id"] not in repeats
        ]
        if not eligible:
            return None
        row = Random(f"{self.seed} {len(own)}").choice(eligible)
        earlier = showing_of(row)
        return replace(earlier, id=uuid4().hex, shown=earlier.shown[::-1], repeats=row["id"])

    def _fresh(self, rows: Sequence[Row]) -> Showing | None:
        """Return the first candidates that nobody has answered or is looking at."""
        taken = {row["item"] for row in rows}
        taken |= {showing.item for showing in self._current.values()}
        taken |= {showing.item for waiting in self._undone.values() for showing in waiting}
        for one in list(self.source.made):
            if one.key not in taken:
                return self._show(one)
        return None

    def _show(self, one: Candidates) -> Showing:
        random = Random(f"{self.seed} {one.key}")
        shown = list(self.choice.pick(one, 2 if self.mode == "pairs" else 1, random))
        random.shuffle(shown)
        return Showing(uuid4().hex, one.key, one.prompt, tuple(shown), one.columns)


def showing_of(row: Row) -> Showing:
    """Return what an answer was given to, with a new id."""
    shown = shown_in(row)
    columns = columns_in(row)
    return Showing(uuid4().hex, row["item"], row["prompt"], shown, columns, row.get("repeats"))

"""Which entry to use for which kind of data, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo_compare.report.kinds import CONTROL, KINDS, NOTHING
from alignzoo_compare.report.summary import Summary
from alignzoo_compare.statistics.intervals import ALPHA, Interval


@dataclass(frozen=True)
class Candidate:
    """An entry with what a choice rests on; `gain` is over the base."""

    entry: str
    kind: str
    gain: Interval
    ties: list[str]

    @property
    def helps(self) -> bool:
        """Return whether the entry is told to be better than the base."""
        return self.gain.mean > 0 and self.gain.p_value < ALPHA


@dataclass(frozen=True)
class Choice:
    """The best entry of a kind and those not told apart from it, best first.

    `others` is the number of entries of the kind that are told to be worse.
    """

    kind: str
    best: list[Candidate]
    others: int
    certainty: str


def choose_by_kind(candidates: Sequence[Candidate]) -> list[Choice]:
    """Return the choice for each kind of feedback that has candidates, which are best first."""
    choices = []
    for kind in (*reversed(KINDS.values()), NOTHING):
        own = [candidate for candidate in candidates if candidate.kind == kind]
        if own:
            best = [own[0], *(each for each in own[1:] if each.entry in own[0].ties)]
            others = len(own) - len(best)
            choices.append(Choice(kind, best, others, describe_certainty(best, others)))
    return choices


def describe_certainty(best: Sequence[Candidate], others: int) -> str:
    """Return in plain words how sure it is that the best are better than the base and the rest."""
    helping = sum(candidate.helps for candidate in best)
    if not helping:
        who = "it is not" if len(best) == 1 else "none of them is"
        text = f"No evidence of a gain: {who} told to be better than the base."
    elif len(best) == 1:
        text = "Better than the base" + (
            f" and than the {'other' if others == 1 else f'{others} others'} of its kind."
            if others
            else "; nothing else of its kind was compared."
        )
    else:
        who = "All" if helping == len(best) else f"{helping}"
        text = (
            f"{who} of these {len(best)} are better than the base; which of the {len(best)} is "
            "best cannot be told."
        )
    if best[0].gain.seeds == 1:
        text += " From one seed: another run may differ more than the interval says."
    return text


def task_candidates(summary: Summary, place: int) -> list[Candidate]:
    """Return the candidates of a task, best first."""
    return [
        Candidate(entry.entry, entry.kind, entry.over_base, entry.ties)
        for entry in summary.tasks[place].entries
        if entry.kind != CONTROL and entry.over_base is not None
    ]


def overall_candidates(summary: Summary) -> list[Candidate]:
    """Return the candidates over all tasks, best first."""
    return [
        Candidate(entry.entry, entry.kind, entry.over_base, entry.ties)
        for entry in summary.overall
        if entry.kind != CONTROL and entry.over_base is not None
    ]

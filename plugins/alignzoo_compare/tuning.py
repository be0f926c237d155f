"""Fair tuning: every entry gets the same number of trials on the `dev` prompts of each task.

The first trial has the entry's own settings. The next ones vary the peak learning rate, and then
the main knob of the algorithm, its option `beta`, at the best rate; an algorithm without one gets
more rates instead. The best mean score wins, and of equal ones the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo import discovery
from alignzoo.options import build

KNOB = "beta"
RATES = (3.0, 1 / 3)
MORE_RATES = (10.0, 0.1)
KNOBS = (1 / 3, 3.0)
MOST_TRIALS = 1 + len(RATES) + len(MORE_RATES)

Trial = dict[str, float]  # what a trial changes: `learning_rate`, `beta`


@dataclass(frozen=True)
class Outcome:
    """The result of a trial: what it changed, its mean score, and the peak learning rate it had.

    The score is -inf if the run failed.
    """

    trial: Trial
    score: float
    learning_rate: float | None


def next_trials(done: Sequence[Outcome], count: int, knob: float | None) -> list[Trial]:
    """Return the trials that can be run now, none if all `count` of them are done.

    Args:
        done: outcomes so far, in the order of the trials.
        count: number of trials of each entry.
        knob: default of the algorithm's main knob; None if it has none.
    """
    if not done:
        return [{}]
    rate = done[0].learning_rate
    if rate is None:  # nothing is trained, or the run failed at once
        return []
    first: list[Trial] = [{}, *({"learning_rate": round_to_three(rate * x)} for x in RATES)]
    first = first[:count]
    if len(done) < len(first):
        return first[len(done) :]
    if knob is None:
        more = [{"learning_rate": round_to_three(rate * x)} for x in MORE_RATES]
    else:
        best = choose(done[: len(first)])
        more = [{**best, KNOB: round_to_three(knob * x)} for x in KNOBS]
    return [*first, *more][len(done) : count]


def choose(done: Sequence[Outcome]) -> Trial:
    """Return the trial with the best score, of equal ones the first; the defaults if all failed."""
    best: Trial = {}
    score = -math.inf
    for outcome in done:
        if outcome.score > score:
            best, score = outcome.trial, outcome.score
    return best


def with_trial(settings: Mapping[str, Any], trial: Trial) -> dict[str, Any]:
    """Return the settings of an entry with those of a trial."""
    changed = dict(settings)
    if "learning_rate" in trial:
        changed["learning_rate"] = trial["learning_rate"]
    if KNOB in trial:
        changed["options"] = {**(settings.get("options") or {}), KNOB: trial[KNOB]}
    return changed


def knob_of(settings: Mapping[str, Any]) -> float | None:
    """Return the value of an entry's main knob, None if it has none or it is off (0)."""
    algorithm = discovery.load_plugin("algorithms", settings["algorithm"])
    built = build(algorithm, settings.get("options") or {}, settings["algorithm"])
    value = getattr(built, KNOB, None)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def round_to_three(value: float) -> float:
    """Return a value with three significant digits, to be typed and read."""
    return float(f"{value:.3g}")

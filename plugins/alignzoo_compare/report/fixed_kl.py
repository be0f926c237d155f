"""Scores at one KL to the base: what entries gain at the same distance from where they began."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo_compare.board import Row
from alignzoo_compare.grid import BASE
from alignzoo_compare.statistics.frontier import compare_at, estimate_at
from alignzoo_compare.statistics.intervals import Interval


@dataclass(frozen=True)
class FixedKL:
    """The scores of a task's entries at one KL to the base.

    Args:
        kl: nats per completion, the largest that more than half of the entries reach.
        measured: number of entries whose score is known at several KLs.
        scores: by entry, of those that reach it with every seed: the mean over seeds.
        over_control: the same for the difference to a control, paired by seed.
    """

    kl: float
    measured: int
    scores: dict[str, Interval]
    over_control: dict[str, Interval]


def fix_kl(rows: Mapping[str, Sequence[Row]], control: str) -> FixedKL | None:
    """Return the scores at one KL, or None if no run was evaluated in its middle.

    Args:
        rows: the finished rows of each entry on a task, the base among them.
        control: the entry that the others are compared with as well.
    """
    seeds = {row["number"]: row["summary"]["score"] for row in rows[BASE]}
    curves = {
        entry: {row["number"]: curve_of(row, seeds[row["number"]]) for row in found}
        for entry, found in rows.items()
        if len(found) == len(seeds) and all(map(has_middle, found))
    }
    # An entry reaches what its nearest seed reaches.
    reach = {entry: min(max(x) for x, _ in found.values()) for entry, found in curves.items()}
    if not reach:
        return None
    kl = round_down(sorted(reach.values(), reverse=True)[len(reach) // 2])
    if kl <= 0:
        return None
    there = {entry: curves[entry] for entry in curves if reach[entry] >= kl}
    return FixedKL(
        kl,
        len(reach),
        {entry: estimate_at(list(found.values()), kl) for entry, found in there.items()},
        {
            entry: compare_at(found, there[control], kl)
            for entry, found in there.items()
            if control in there and entry != control
        },
    )


def has_middle(row: Row) -> bool:
    """Return True if a run was evaluated before its end as well: two points are no curve."""
    return sum("kl" in point for point in row["curve"]) > 1


def curve_of(row: Row, base: float) -> tuple[list[float], list[float]]:
    """Return the KLs and scores of a run, which begins at the base's score and a KL of 0."""
    points = [point for point in row["curve"] if "kl" in point]
    return [0.0, *(point["kl"] for point in points)], [base, *(point["score"] for point in points)]


def round_down(value: float) -> float:
    """Return a value with two significant digits, no larger than it was; 0 if it is not above 0."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit + 1e-9) * unit:.2g}")

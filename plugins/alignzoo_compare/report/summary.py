"""What a board says: a result for each entry and task, and over all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from alignzoo_compare.board import Board, Row
from alignzoo_compare.grid import BASE, Grid
from alignzoo_compare.statistics.aggregate import (
    Aggregate,
    interquartile_mean,
    probability_of_improvement,
)
from alignzoo_compare.statistics.behrens_fisher import Array
from alignzoo_compare.statistics.intervals import (
    Interval,
    estimate_score,
    fill_failed_seeds,
    warn_of_few_seeds,
)
from alignzoo_compare.statistics.length import LengthControl, control_length
from alignzoo_compare.statistics.multiple import (
    Ranking,
    compare_with,
    least_detectable_difference,
    rank_entries,
    split_pair_variance,
)

CONTROL = "sft"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class EntryResult:
    """The result of an entry on a task, over the seeds that all entries have.

    `score` is in the task's own scale. `over_base` and `over_sft` are paired differences on the
    same items, with p-values corrected by Holm over the entries of the task. `group` has a letter
    for each set of entries that are not told apart. Costs are means over seeds; `tuning_flops` is
    the sum over trials. `failed` seeds count as the base.
    """

    entry: str
    score: Interval
    failed: int
    rank_low: int
    rank_high: int
    group: str
    over_base: Interval | None
    over_sft: Interval | None
    at_equal_length: LengthControl | None
    kl: float | None
    length: float
    ended: float
    flops: float
    tuning_flops: float
    feedback: float
    seconds: float
    peak_memory_bytes: float
    proxy_gap: float | None
    retention: float | None
    trial: dict[str, float]
    commands: list[str]
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """The results on a task, best first, and the least difference that it could have told.

    `refused` has the entries that do not apply to the task, and why.
    """

    task: str
    entries: list[EntryResult]
    seeds: int
    items: int
    least_difference: float
    refused: dict[str, str]


@dataclass(frozen=True)
class OverallResult:
    """The result of an entry over all tasks, each scaled so that 0 is its worst and 1 its best."""

    entry: str
    mean: float
    rank_low: int
    rank_high: int
    group: str
    interquartile_mean: Aggregate
    over_base: Aggregate  # probability that a run is better than the base's
    over_sft: Aggregate | None


@dataclass(frozen=True)
class Summary:
    """A board in numbers. `overall` is empty with one task, and has entries that all tasks have."""

    grid: Grid
    tasks: list[TaskResult]
    overall: list[OverallResult]
    warnings: list[str]


def summarise_board(board: Board) -> Summary:
    """Return the summary of a board, of the cells that are finished so far."""
    tables = {task: read_scores(board, task) for task in board.grid.tasks}
    tables = {task: table for task, table in tables.items() if table.scores}
    tasks = [summarise_task(board, task, table) for task, table in tables.items()]
    few = warn_of_few_seeds(min((task.seeds for task in tasks), default=0) or 1)
    warnings = [few] if few else []
    missing = [task for task in board.grid.tasks if task not in tables]
    warnings += [f"no seed of task {task!r} is finished by all entries yet" for task in missing]
    warnings += describe_failures(board)
    return Summary(board.grid, tasks, summarise_overall(tables), warnings)


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a task, [S, I] for each entry, of the seeds that every entry has.

    `rows` are the finished rows behind them, and `bounds` the task's worst and best score.
    """

    scores: dict[str, Array]
    rows: dict[str, list[Row]]
    failed: dict[str, int]
    refused: dict[str, str]
    bounds: tuple[float, float]


def read_scores(board: Board, task: str) -> ScoreTable:
    """Return the scores of a task. A failed seed has those of the base; see `fill_failed_seeds`."""
    refused: dict[str, str] = {}
    found: dict[str, dict[int, Row]] = {}
    for entry in board.grid.entries:
        both = [*board.find("trial", entry, task), *board.find("final", entry, task)]
        problem = next((row["error"] for row in both if row["status"] == "refused"), None)
        if problem is not None:
            refused[entry] = problem
            continue
        found[entry] = {row["number"]: row for row in board.find("final", entry, task)}
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    base = found.get(BASE, {})
    seeds = [seed for seed in seeds if base[seed]["status"] == "finished"]
    if not seeds:
        return ScoreTable({}, {}, {}, refused, (0.0, 1.0))
    size = len(base[seeds[0]]["items"]["score"])
    plain = np.array([base[seed]["items"]["score"] for seed in seeds], float)
    scores: dict[str, Array] = {}
    rows: dict[str, list[Row]] = {}
    failed: dict[str, int] = {}
    for entry, by_seed in found.items():
        table = np.full((len(seeds), size), np.nan)
        rows[entry] = [by_seed[s] for s in seeds if by_seed[s]["status"] == "finished"]
        for place, seed in enumerate(seeds):
            if by_seed[seed]["status"] == "finished":
                table[place] = by_seed[seed]["items"]["score"]
        scores[entry] = fill_failed_seeds(table, plain)
        failed[entry] = len(seeds) - len(rows[entry])
    low, high = base[seeds[0]].get("bounds", (0.0, 1.0))
    return ScoreTable(scores, rows, failed, refused, (low, high))


def summarise_task(board: Board, task: str, table: ScoreTable) -> TaskResult:
    """Return the results on a task, best first."""
    names = list(table.scores)
    scores = np.stack([table.scores[name] for name in names])
    ranking = rank_entries([scores])
    over = {BASE: differences(table, BASE), CONTROL: differences(table, CONTROL)}
    entries = []
    for place in np.argsort(-ranking.mean, kind="stable"):
        name = names[place]
        rows = table.rows[name]
        trials = board.find("trial", name, task)
        entries.append(
            EntryResult(
                entry=name,
                score=estimate_score(table.scores[name], table.bounds),
                failed=table.failed[name],
                rank_low=int(ranking.rank_low[place]),
                rank_high=int(ranking.rank_high[place]),
                group=letters_of(ranking, int(place)),
                over_base=over[BASE].get(name),
                over_sft=over[CONTROL].get(name),
                at_equal_length=length_control(table, name),
                tuning_flops=sum(flops_of(row) for row in trials),
                proxy_gap=mean_of([proxy_gap(row, table.rows[BASE][0]) for row in rows]),
                retention=mean_of([row["summary"].get("retention/loss") for row in rows]),
                trial=dict(rows[0]["trial"]) if rows else {},
                commands=[row["command"] for row in rows],
                **mean_costs(rows),
                **mean_items(rows),
            )
        )
    seeds, items = scores.shape[1:]
    pairs = len(names) * (len(names) - 1) // 2
    least = least_detectable_difference(split_pair_variance(scores), pairs)
    return TaskResult(task, entries, seeds, items, least, table.refused)


def differences(table: ScoreTable, control: str) -> dict[str, Interval]:
    """Return the paired difference of every other entry to a control, by entry."""
    others = [name for name in table.scores if name != control]
    if control not in table.scores or not others:
        return {}
    stacked = np.stack([table.scores[name] for name in others])
    return dict(zip(others, compare_with(stacked, table.scores[control]), strict=True))


def length_control(table: ScoreTable, entry: str) -> LengthControl | None:
    """Return an entry's difference to the base at equal length; None if a seed of it failed."""
    if entry == BASE or table.failed[entry] or table.failed[BASE]:
        return None
    lengths = [
        np.array([row["items"]["length"] for row in table.rows[name]], float)
        for name in (entry, BASE)
    ]
    return control_length(table.scores[entry], table.scores[BASE], *lengths)


def mean_costs(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the mean costs of runs, as fields of `EntryResult`."""
    feedback = ("demonstrations", "pairs", "labels", "verifier_calls", "judge_calls")
    ledgers = [row["ledger"] for row in rows]
    return {
        "flops": mean_of([ledger["total_flops"] for ledger in ledgers]) or 0.0,
        "feedback": mean_of([sum(x["feedback"].get(k, 0) for k in feedback) for x in ledgers])
        or 0.0,
        "seconds": mean_of([ledger["seconds"] for ledger in ledgers]) or 0.0,
        "peak_memory_bytes": mean_of([x["peak_memory_bytes"] for x in ledgers]) or 0.0,
    }


def mean_items(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the means of what is measured for each item, as fields of `EntryResult`."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, values in row["items"].items():
            columns.setdefault(name, []).extend(v for v in values if v is not None)
    means = {name: fmean(values) for name, values in columns.items() if values}
    known = ("score", "kl", "length", "ended")
    return {
        "kl": means.get("kl"),
        "length": means.get("length", 0.0),
        "ended": means.get("ended", 0.0),
        "measures": {name: value for name, value in means.items() if name not in known},
    }


def proxy_gap(row: Row, base: Row) -> float | None:
    """Return how much more a learned reward has risen than gold, each in deviations of the base."""
    proxy = row["proxy"]
    if proxy is None or not proxy["std"]:
        return None
    gold = np.array(base["items"]["score"], float)
    spread = float(gold.std())
    if spread == 0:
        return None
    rise = (proxy["after"] - proxy["before"]) / proxy["std"]
    return float(rise - (fmean(row["items"]["score"]) - float(gold.mean())) / spread)


def summarise_overall(tables: dict[str, ScoreTable]) -> list[OverallResult]:
    """Return the results over all tasks of the entries that every task has, best first."""
    if len(tables) < 2:
        return []
    first = next(iter(tables.values()))
    names = [name for name in first.scores if all(name in t.scores for t in tables.values())]
    seeds = min(len(next(iter(table.scores.values()))) for table in tables.values())
    scaled = [
        np.stack([scale(table.scores[name][:seeds], table.bounds) for name in names])
        for table in tables.values()
    ]
    ranking = rank_entries(scaled)
    runs = np.stack([task.mean(-1) for task in scaled], axis=-1)  # [K, S, T]
    by_name = dict(zip(names, runs, strict=True))
    return [
        OverallResult(
            entry=names[place],
            mean=float(ranking.mean[place]),
            rank_low=int(ranking.rank_low[place]),
            rank_high=int(ranking.rank_high[place]),
            group=letters_of(ranking, int(place)),
            interquartile_mean=interquartile_mean(runs[place]),
            over_base=probability_of_improvement(runs[place], by_name[BASE]),
            over_sft=probability_of_improvement(runs[place], by_name[CONTROL])
            if CONTROL in by_name
            else None,
        )
        for place in np.argsort(-ranking.mean, kind="stable")
    ]


def scale(scores: Array, bounds: tuple[float, float]) -> Array:
    """Return scores on the scale from 0, the worst, to 1, the best."""
    worst, best = bounds
    return (scores - worst) / (best - worst)


def letters_of(ranking: Ranking, place: int) -> str:
    """Return the letters of the groups that an entry is in: entries that share one are not told
    apart."""
    numbers = [number for number, group in enumerate(ranking.groups) if place in group]
    return "".join(LETTERS[number % len(LETTERS)] for number in numbers)


def describe_failures(board: Board) -> list[str]:
    """Return a line for each cell that failed."""
    return [
        f"{row['entry']} failed on {row['task']} ({row['kind']} {row['number']}): {row['error']}"
        for row in board.rows
        if row["status"] == "failed"
    ]


def flops_of(row: Row) -> float:
    """Return the FLOPs of a run, 0 if it failed."""
    return float(row["ledger"]["total_flops"]) if row["status"] == "finished" else 0.0


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that there are; None without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

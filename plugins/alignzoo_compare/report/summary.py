"""What a board says: a result for each entry and task, and over all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean
from typing import Any

import numpy as np

from alignzoo.evaluation import Estimate, mean_with_interval
from alignzoo.ledger import ONLINE_FEEDBACK, ROW_FEEDBACK
from alignzoo_compare.board import Board, Row
from alignzoo_compare.grid import BASE, Grid
from alignzoo_compare.report.fixed_kl import fix_kl
from alignzoo_compare.report.kinds import kind_of
from alignzoo_compare.statistics.aggregate import (
    Aggregate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from alignzoo_compare.statistics.behrens_fisher import Array
from alignzoo_compare.statistics.intervals import (
    Interval,
    MeanVariance,
    as_interval,
    average_tasks,
    estimate_score,
    fill_failed_seeds,
    split_variance,
    warn_of_few_seeds,
)
from alignzoo_compare.statistics.length import LengthControl, control_length
from alignzoo_compare.statistics.multiple import (
    Ranking,
    compare_with,
    correct_by_holm,
    least_detectable_difference,
    rank_entries,
    split_pair_variance,
)

CONTROL = "sft"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
THRESHOLDS = [round(0.02 * place, 2) for place in range(51)]  # of a performance profile


@dataclass(frozen=True)
class EntryResult:
    """The result of an entry on a task, over the seeds that all entries have.

    `score` is in the task's own scale. `over_base` and `over_sft` are paired differences on the
    same items, with p-values corrected by Holm over the entries of the task. `group` has a letter
    for each set of entries that are not told apart. `kind` is that of the feedback; see
    `ties_by_kind` for `ties`. Costs are means over seeds; `tuning_flops` is the sum over trials.
    `failed` seeds count as the base. `dev` is the score of the chosen trial on `dev`. `at_kl` is
    the score at the task's `fixed_kl`, and `at_kl_over_sft` the difference to `sft` there, both
    None if a seed does not reach it. `also` has measures on other tasks.
    """

    entry: str
    kind: str
    score: Interval
    failed: int
    rank_low: int
    rank_high: int
    group: str
    ties: list[str]
    over_base: Interval | None
    over_sft: Interval | None
    at_equal_length: LengthControl | None
    at_kl: Interval | None
    at_kl_over_sft: Interval | None
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
    dev: float | None
    trial: dict[str, float]
    commands: list[str]
    measures: dict[str, float] = field(default_factory=dict)
    also: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """The results on a task, best first, and the least difference that it could have told.

    `span` is the difference of the best score to the worst that the task can give. `absent` has
    the entries without a result, and why: they do not apply to the task, or are not finished.
    `fixed_kl` is the KL to the base of `at_kl`, which `reaching` of `measured` entries reach.
    """

    task: str
    entries: list[EntryResult]
    seeds: int
    items: int
    least_difference: float
    span: float
    absent: dict[str, str]
    fixed_kl: float | None = None
    reaching: int = 0
    measured: int = 0


@dataclass(frozen=True)
class OverallResult:
    """The result of an entry over all tasks, each scaled so that 0 is its worst and 1 its best.

    `over_base` is the mean over tasks of the paired difference to the base, with a p-value
    corrected by Holm over the entries. `beats_base` and `beats_sft` are the probabilities that a
    run is better than one of theirs. `profile` has the fraction of runs above each of `THRESHOLDS`.
    """

    entry: str
    kind: str
    mean: float
    rank_low: int
    rank_high: int
    group: str
    ties: list[str]
    over_base: Interval | None
    interquartile_mean: Aggregate
    beats_base: Aggregate
    beats_sft: Aggregate | None
    profile: list[Aggregate]


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
    warnings += [
        f"no seed of task {task!r} is finished by the base and all others" for task in missing
    ]
    warnings += describe_failures(board)
    return Summary(board.grid, tasks, summarise_overall(board, tables), warnings)


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a task, [S, I] for each entry, of the seeds that every entry has.

    `rows` are the finished rows behind them, and `bounds` the task's worst and best score.
    """

    scores: dict[str, Array]
    rows: dict[str, list[Row]]
    failed: dict[str, int]
    absent: dict[str, str]
    bounds: tuple[float, float]


def read_scores(board: Board, task: str) -> ScoreTable:
    """Return the scores of a task. A failed seed has those of the base; see `fill_failed_seeds`."""
    absent: dict[str, str] = {}
    found: dict[str, dict[int, Row]] = {}
    for entry in board.grid.entries:
        finals = board.find("final", entry, task)
        both = [*board.find("trial", entry, task), *finals]
        problem = next((row["error"] for row in both if row["status"] == "refused"), None)
        if problem is not None:
            absent[entry] = problem
        elif not finals:
            absent[entry] = "not finished yet"
        else:
            found[entry] = {row["number"]: row for row in finals}
    base = found.get(BASE, {})
    seeds = sorted(set.intersection(*map(set, found.values()))) if base else []
    seeds = [seed for seed in seeds if base[seed]["status"] == "finished"]
    if not seeds:
        return ScoreTable({}, {}, {}, absent, (0.0, 1.0))
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
    return ScoreTable(scores, rows, failed, absent, (low, high))


def summarise_task(board: Board, task: str, table: ScoreTable) -> TaskResult:
    """Return the results on a task, best first."""
    names = list(table.scores)
    scores = np.stack([table.scores[name] for name in names])
    ranking = rank_entries([scores])
    kinds = kinds_of(board, table)
    ties = ties_by_kind([scores], names, kinds)
    over = {BASE: differences(table, BASE), CONTROL: differences(table, CONTROL)}
    at_kl = fix_kl(table.rows, CONTROL)
    entries = []
    for place in np.argsort(-ranking.mean, kind="stable"):
        name = names[place]
        rows = table.rows[name]
        trials = board.find("trial", name, task)
        entries.append(
            EntryResult(
                entry=name,
                kind=kinds[name],
                score=estimate_score(table.scores[name], table.bounds),
                failed=table.failed[name],
                rank_low=int(ranking.rank_low[place]),
                rank_high=int(ranking.rank_high[place]),
                group=letters_of(ranking, int(place)),
                ties=ties[name],
                over_base=over[BASE].get(name),
                over_sft=over[CONTROL].get(name),
                at_equal_length=length_control(table, name),
                at_kl=at_kl.scores.get(name) if at_kl else None,
                at_kl_over_sft=at_kl.over_control.get(name) if at_kl else None,
                tuning_flops=sum(flops_of(row) for row in trials),
                proxy_gap=mean_of([proxy_gap(row, table.rows[BASE][0]) for row in rows]),
                retention=mean_of([row["summary"].get("retention/loss") for row in rows]),
                dev=score_of_trial(rows, trials),
                trial=dict(rows[0]["trial"]) if rows else {},
                commands=[row["command"] for row in rows],
                also=estimate_also(rows),
                **mean_costs(rows),
                **mean_items(rows),
            )
        )
    seeds, items = scores.shape[1:]
    span = table.bounds[1] - table.bounds[0]
    pairs = len(names) * (len(names) - 1) // 2
    least = least_detectable_difference(split_pair_variance(scores), pairs)
    result = TaskResult(task, entries, seeds, items, least, abs(span), table.absent)
    if at_kl is None:
        return result
    return replace(result, fixed_kl=at_kl.kl, reaching=len(at_kl.scores), measured=at_kl.measured)


def score_of_trial(rows: Sequence[Row], trials: Sequence[Row]) -> float | None:
    """Return the mean score on dev of the trial whose settings the finals have; None without."""
    chosen = [row for row in trials if rows and row["trial"] == rows[0]["trial"]]
    finished = [row for row in chosen if row["status"] == "finished"]
    return fmean(finished[0]["items"]["score"]) if finished else None


def estimate_also(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return the measures on other tasks by task and name: means over seeds, with intervals."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for task, measures in (row.get("also") or {}).items():
            for name, value in measures.items():
                columns.setdefault(f"{task} {name}", []).append(value)
    return {name: mean_with_interval(values) for name, values in columns.items()}


def kinds_of(board: Board, table: ScoreTable) -> dict[str, str]:
    """Return the kind of feedback of each entry of a task."""
    return {
        name: kind_of(name, board.grid.entries[name], rows) for name, rows in table.rows.items()
    }


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
    kinds = (*ROW_FEEDBACK, *ONLINE_FEEDBACK)
    ledgers = [row["ledger"] for row in rows]
    return {
        "flops": mean_of([ledger["total_flops"] for ledger in ledgers]) or 0.0,
        "feedback": mean_of([sum(x["feedback"].get(k, 0) for k in kinds) for x in ledgers]) or 0.0,
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


def summarise_overall(board: Board, tables: dict[str, ScoreTable]) -> list[OverallResult]:
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
    kinds = kinds_of(board, first)
    ties = ties_by_kind(scaled, names, kinds)
    gains = gains_over_base(scaled, names)
    runs = np.stack([task.mean(-1) for task in scaled], axis=-1)  # [K, S, T]
    by_name = dict(zip(names, runs, strict=True))
    return [
        OverallResult(
            entry=(name := names[place]),
            kind=kinds[name],
            mean=float(ranking.mean[place]),
            rank_low=int(ranking.rank_low[place]),
            rank_high=int(ranking.rank_high[place]),
            group=letters_of(ranking, int(place)),
            ties=ties[name],
            over_base=gains.get(name),
            interquartile_mean=interquartile_mean(runs[place]),
            beats_base=probability_of_improvement(runs[place], by_name[BASE]),
            beats_sft=probability_of_improvement(runs[place], by_name[CONTROL])
            if CONTROL in by_name
            else None,
            profile=profile_of(runs[place]),
        )
        for place in np.argsort(-ranking.mean, kind="stable")
    ]


def gains_over_base(tasks: Sequence[Array], names: Sequence[str]) -> dict[str, Interval]:
    """Return the mean over tasks of each entry's paired difference to the base, by entry.

    Each task is scores [K, S, I] of the `names` in order.
    """
    others = [place for place, name in enumerate(names) if name != BASE]
    if not others:
        return {}
    base = names.index(BASE)
    means = average_tasks([split_variance(scores[others] - scores[base]) for scores in tasks])
    seeds, items = tasks[0].shape[1], sum(scores.shape[2] for scores in tasks)
    corrected = correct_by_holm(means.p_value)
    return {
        names[place]: replace(as_interval(take(means, number), seeds, items), p_value=float(p))
        for number, (place, p) in enumerate(zip(others, corrected, strict=True))
    }


def take(means: MeanVariance, number: int) -> MeanVariance:
    """Return one of several means with its variances."""
    return MeanVariance(*(getattr(means, part.name)[number] for part in fields(means)))


def profile_of(runs: Array) -> list[Aggregate]:
    """Return the fraction of runs [S, T] above each of `THRESHOLDS`."""
    profile = performance_profile(runs, np.array(THRESHOLDS))
    parts = (profile.fraction.tolist(), profile.low.tolist(), profile.high.tolist())
    return [Aggregate(*point) for point in zip(*parts, strict=True)]


def scale(scores: Array, bounds: tuple[float, float]) -> Array:
    """Return scores on the scale from 0, the worst, to 1, the best."""
    worst, best = bounds
    return (scores - worst) / (best - worst)


def letters_of(ranking: Ranking, place: int) -> str:
    """Return the letters of the groups that an entry is in: entries that share one are not told
    apart. After `z` come `a2`, `b2` and so on."""
    numbers = [number for number, group in enumerate(ranking.groups) if place in group]
    rounds = [(LETTERS[number % len(LETTERS)], number // len(LETTERS)) for number in numbers]
    return "".join(f"{letter}{turn + 1}" if turn else letter for letter, turn in rounds)


def ties_by_kind(
    tasks: Sequence[Array], names: Sequence[str], kinds: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the entries of its own kind that each entry is not told apart from.

    Each task is scores [K, S, I] of the `names` in order. P-values are corrected over the pairs of
    a kind: who has pairs chooses among the entries that learn from pairs.
    """
    ties: dict[str, list[str]] = {}
    for kind in dict.fromkeys(kinds.values()):
        own = [place for place, name in enumerate(names) if kinds[name] == kind]
        apart = rank_entries([scores[own] for scores in tasks]).apart
        for i, place in enumerate(own):
            ties[names[place]] = [
                names[other] for j, other in enumerate(own) if j != i and not apart[i, j]
            ]
    return ties


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

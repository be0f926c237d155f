"""A summary as tables: for a terminal, in Markdown and CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignzoo.cli.render import clean, lines, to_plain
from alignzoo.errors import count
from alignzoo.evaluation import Estimate
from alignzoo_compare.report.summary import EntryResult, OverallResult, Summary, TaskResult
from alignzoo_compare.statistics.aggregate import Aggregate
from alignzoo_compare.statistics.intervals import Interval

HEADINGS = (
    "entry", "score", "rank", "group", "over base", "over sft", "at equal length", "at KL",
    "at KL, over sft", "KL", "length", "FLOPs", "tuning", "feedback", "seconds", "MiB", "failed",
)  # fmt: skip
WIDE = ("entry", "score", "rank", "group", "over base", "KL", "length", "FLOPs", "seconds")
NARROW = ("entry", "score", "group", "over base")
NARROW_WIDTH = 110  # columns of a terminal below which a table has less
OVERALL = (
    "entry", "mean", "rank", "group", "over base", "IQM", "P(better than base)",
    "P(better than sft)",
)  # fmt: skip
Summaries = Sequence[tuple[str, Summary]]  # with the titles of boards that are shown apart
OVERALL_NARROW = ("entry", "mean", "group", "over base")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")  # to Markdown


def print_summary(summary: Summary, console: Console) -> None:
    """Print the tables of a summary, and what to know about them."""
    wide = console.width >= NARROW_WIDTH
    headings, overall = (WIDE, OVERALL) if wide else (NARROW, OVERALL_NARROW)
    for task in summary.tasks:
        lines(console, ["", describe_task(task)])
        console.print(rich_table(headings, [entry_cells(entry) for entry in task.entries]))
        lines(console, [f"{name}: {why}" for name, why in task.absent.items()])
    if summary.overall:
        console.print(Text("\nall tasks"))
        console.print(rich_table(overall, [overall_cells(entry) for entry in summary.overall]))
    lines(console, summary.warnings)


def rich_table(headings: tuple[str, ...], rows: list[dict[str, str]]) -> Table:
    """Return a table for a terminal of the columns that are named."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading == "entry")
    for row in rows:
        table.add_row(*(Text(clean(row[heading])) for heading in headings))
    return table


def describe_task(task: TaskResult) -> str:
    """Return what a task's table is of, and what it could have told, as a line."""
    told = f"a difference of {task.least_difference:.3f} would have been, at 80% power"
    if task.least_difference >= task.span:
        told = "with more seeds or items they might be: these could tell no difference of any size"
    return (
        f"{task.task}: {count(task.seeds, 'seed')}, {count(task.items, 'item')}; two entries that "
        f"share a letter are not told apart; {told}"
    )


def describe_fixed_kl(task: TaskResult) -> str:
    """Return which KL the scores at a KL are at, as a line; nothing if there are none."""
    if task.fixed_kl is None:
        return ""
    return (
        f"at KL: the score at {task.fixed_kl:g} nats from the base, between the evaluations of a "
        f"run; {task.reaching} of {count(task.measured, 'entry', 'entries')} reach it with every "
        "seed"
    )


def entry_cells(entry: EntryResult) -> dict[str, str]:
    """Return the cells of an entry's row by heading."""
    return {
        "entry": entry.entry,
        "score": interval(entry.score),
        "rank": rank(entry.rank_low, entry.rank_high),
        "group": entry.group,
        "over base": difference(entry.over_base),
        "over sft": difference(entry.over_sft),
        "at equal length": difference(controlled(entry), star=False),
        "at KL": "" if entry.at_kl is None else interval(entry.at_kl),
        "at KL, over sft": difference(entry.at_kl_over_sft, star=False),
        "KL": "" if entry.kl is None else f"{entry.kl:z.2f}",
        "length": f"{entry.length:.1f}",
        "FLOPs": f"{entry.flops:.2g}",
        "tuning": f"{entry.tuning_flops:.2g}",
        "feedback": f"{entry.feedback:,.0f}",
        "seconds": f"{entry.seconds:.0f}",
        "MiB": f"{entry.peak_memory_bytes / 2**20:,.0f}",
        "failed": str(entry.failed or ""),
    }


def overall_cells(entry: OverallResult) -> dict[str, str]:
    """Return the cells of an entry's row over all tasks by heading."""
    return {
        "entry": entry.entry,
        "mean": f"{entry.mean:.3f}",
        "rank": rank(entry.rank_low, entry.rank_high),
        "group": entry.group,
        "over base": difference(entry.over_base),
        "IQM": aggregate(entry.interquartile_mean),
        "P(better than base)": aggregate(entry.beats_base),
        "P(better than sft)": "" if entry.beats_sft is None else aggregate(entry.beats_sft),
    }


def interval(value: Interval) -> str:
    """Return a mean with its interval, if it has one."""
    return bounded(value.mean, None if math.isnan(value.low) else value.low, value.high)


def difference(value: Interval | None, *, star: bool = True) -> str:
    """Return a difference with its interval, and a star if it is told from 0."""
    if value is None:
        return ""
    if math.isnan(value.low):
        return f"{value.mean:+z.3f}"
    told = " *" if star and value.p_value < 0.05 else ""
    return f"{value.mean:+z.3f} [{value.low:+z.3f}, {value.high:+z.3f}]{told}"


def controlled(entry: EntryResult) -> Interval | None:
    """Return an entry's difference to the base at equal length."""
    return None if entry.at_equal_length is None else entry.at_equal_length.controlled


def aggregate(value: Aggregate) -> str:
    """Return a quantity over tasks with its interval."""
    return bounded(value.value, value.low, value.high)


def estimate(value: Estimate) -> str:
    """Return a mean with its interval, if it has one."""
    return bounded(value.mean, value.low, value.high)


def bounded(value: float, low: float | None, high: float | None) -> str:
    """Return a value with its interval, `0.512 [0.480, 0.544]`, if it has one."""
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def rank(low: int, high: int) -> str:
    """Return the interval of a rank, `2` or `2-5`."""
    return str(low) if low == high else f"{low}-{high}"


def as_markdown(summaries: Summaries) -> str:
    """Return the tables as Markdown, with the text of models and plugins escaped."""
    parts = []
    for title, summary in summaries:
        parts += [f"# {escape(title)}"] if title else []
        for task in summary.tasks:
            texts = [text for text in (describe_task(task), describe_fixed_kl(task)) if text]
            parts += [f"## {escape(task.task)}", *map(escape, texts)]
            parts.append(markdown_table(HEADINGS, [entry_cells(entry) for entry in task.entries]))
            parts += [f"- {escape(f'{name}: {why}')}" for name, why in task.absent.items()]
        if summary.overall:
            rows = [overall_cells(entry) for entry in summary.overall]
            parts += ["## All tasks", markdown_table(OVERALL, rows)]
        parts += [f"- {escape(line)}" for line in summary.warnings]
    return "\n\n".join(parts) + "\n"


def markdown_table(headings: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    """Return a table in Markdown of the columns that are named."""
    head = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    body = [
        f"| {' | '.join([escape(row['entry']), *(row[name] for name in headings[1:])])} |"
        for row in rows
    ]
    return "\n".join([*head, *body])


def escape(text: str) -> str:
    """Return text of which Markdown and HTML read nothing but the characters."""
    return SPECIAL.sub(r"\\\1", clean(text).replace("\n", " "))


def as_csv(summaries: Summaries) -> str:
    """Return a row for each entry and task, numbers in full, as CSV.

    Several boards are told apart by a first column. A cell that a spreadsheet would take for a
    formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = [
        ({"board": title} if len(summaries) > 1 else {}) | flat_row(task, entry)
        for title, summary in summaries
        for task in summary.tasks
        for entry in task.entries
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(map(guard, names))
    for row in rows:
        writer.writerow([guard(row.get(name, "")) for name in names])
    return out.getvalue()


def flat_row(task: TaskResult, entry: EntryResult) -> dict[str, Any]:
    """Return an entry's numbers as the columns of a CSV row."""
    row: dict[str, Any] = {"task": task.task, "entry": entry.entry}
    for name, value in {
        "score": entry.score,
        "over_base": entry.over_base,
        "over_sft": entry.over_sft,
        "at_equal_length": controlled(entry),
        "at_kl": entry.at_kl,
        "at_kl_over_sft": entry.at_kl_over_sft,
    }.items():
        for part in ("mean", "low", "high", "p_value"):
            found = None if value is None else getattr(value, part)
            row[f"{name}_{part}"] = "" if found is None or math.isnan(found) else found
    row["fixed_kl"] = task.fixed_kl
    for name in (
        "rank_low", "rank_high", "group", "kl", "length", "ended", "flops", "tuning_flops",
        "feedback", "seconds", "peak_memory_bytes", "proxy_gap", "retention", "dev", "failed",
    ):  # fmt: skip
        row[name] = getattr(entry, name)
    row |= {f"measure_{name}": value for name, value in entry.measures.items()}
    for name, estimate in entry.also.items():
        for part in ("mean", "low", "high"):
            row[f"also_{name}_{part}"] = getattr(estimate, part)
    return row


def guard(value: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula; numbers stay as they are."""
    if value is None:
        return ""
    text = clean(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in "=+-@\t\r" and text else text


def to_json(summaries: Summaries) -> Any:
    """Return a summary as JSON can hold it, or a list of several with their titles."""
    if len(summaries) == 1:
        return to_plain(summaries[0][1])
    return [{"board": title, **to_plain(summary)} for title, summary in summaries]

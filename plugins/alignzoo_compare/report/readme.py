"""A board's tables in a page of Markdown, between two markers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from alignzoo import BadInput
from alignzoo.cli.render import clean
from alignzoo.errors import count
from alignzoo_compare.report.page import Section
from alignzoo_compare.report.tables import (
    OVERALL,
    describe_task,
    entry_cells,
    escape,
    markdown_table,
    overall_cells,
)

BEGIN, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"
SHORT = ("entry", "score", "group", "over base", "KL", "FLOPs", "seconds", "failed")


def insert_tables(path: Path, sections: Sequence[Section]) -> str:
    """Return the text of a Markdown file with the tables of boards between its markers.

    Raise `BadInput` if the file has no markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {error}", where=str(path)) from None
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise BadInput(
            "has no place for the tables", where=str(path), hint=f"add two lines: {BEGIN} and {END}"
        )
    return f"{before}{BEGIN}\n\n{short_tables(sections)}\n\n{END}{after}"


def short_tables(sections: Sequence[Section]) -> str:
    """Return a short table over all tasks, and one of each task to unfold, as Markdown."""
    parts = []
    for section in sections:
        grid, summary = section.summary.grid, section.summary
        parts += [f"**{escape(section.title)}**"] if section.title else []
        parts.append(
            f"Base: {escape(name_base(grid.model))}. Budget of each run: {escape(grid.budget)}. "
            f"{count(grid.seeds, 'seed')}, {count(grid.trials, 'trial')} on dev."
        )
        if summary.overall:
            rows = [overall_cells(entry) for entry in summary.overall]
            parts += ["All tasks:", markdown_table(OVERALL, rows)]
        for task in summary.tasks:
            table = markdown_table(SHORT, [entry_cells(entry) for entry in task.entries])
            parts.append(folded(describe_task(task), table))
        parts += [f"- {escape(line)}" for line in summary.warnings]
    return "\n\n".join(parts)


def name_base(model: str | None) -> str:
    """Return what a page calls the base of a board: without the folders in which it lies."""
    if model is None:
        return "the embedded model of each task"
    return Path(model).name if Path(model).is_absolute() else model


def folded(line: str, table: str) -> str:
    """Return a table of which a page shows the line alone until a reader unfolds it."""
    # Between the tags Markdown reads nothing, so that HTML's own escapes are needed.
    return f"<details><summary>{html.escape(clean(line))}</summary>\n\n{table}\n\n</details>"

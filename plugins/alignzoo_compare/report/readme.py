"""A board's tables in a page of Markdown, between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignzoo import BadInput
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
    """Return a short table of each task, and one over all tasks, as Markdown."""
    parts = []
    for section in sections:
        grid, summary = section.summary.grid, section.summary
        parts += [f"**{escape(section.title)}**"] if section.title else []
        parts.append(
            f"Base: {escape(grid.model or 'the embedded model of each task')}. Budget of each run: "
            f"{escape(grid.budget)}. {count(grid.seeds, 'seed')}, "
            f"{count(grid.trials, 'trial')} on dev."
        )
        if summary.overall:
            rows = [overall_cells(entry) for entry in summary.overall]
            parts += ["All tasks:", markdown_table(OVERALL, rows)]
        for task in summary.tasks:
            parts.append(f"{escape(describe_task(task))}:")
            parts.append(markdown_table(SHORT, [entry_cells(entry) for entry in task.entries]))
        parts += [f"- {escape(line)}" for line in summary.warnings]
    return "\n\n".join(parts)

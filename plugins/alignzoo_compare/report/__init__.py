"""The report of a board: tables for a terminal and for files, and a page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alignzoo.cli.render import lines
from alignzoo.files import write_json, write_text
from alignzoo_compare.board import Board
from alignzoo_compare.report.page import Section, render_page
from alignzoo_compare.report.summary import Summary, summarise_board
from alignzoo_compare.report.tables import as_csv, as_markdown, print_summary, to_json

__all__ = ["Section", "Summary", "summarise_board", "write_report", "write_sections"]


def write_report(board: Board, console: Console) -> Summary:
    """Print the tables of a board, and write its report into its folder."""
    summary = summarise_board(board)
    write_sections(board.folder, [Section("", board, summary)], console)
    return summary


def write_sections(folder: Path, sections: Sequence[Section], console: Console) -> None:
    """Print the tables of boards that are shown apart, and write one report of them."""
    for section in sections:
        if section.title:
            lines(console, ["", section.title])
        print_summary(section.summary, console)
    named = [(section.title, section.summary) for section in sections]
    write_text(folder / "report.html", render_page(sections))
    write_text(folder / "table.md", as_markdown(named))
    write_text(folder / "table.csv", as_csv(named))
    write_json(folder / "summary.json", to_json(named))
    lines(console, [f"report: {folder / 'report.html'}, table.md, table.csv, summary.json"])

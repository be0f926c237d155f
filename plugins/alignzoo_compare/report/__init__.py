"""The report of a board: tables for a terminal and for files, and a page for a browser."""

from __future__ import annotations

from rich.console import Console

from alignzoo.cli.render import lines
from alignzoo.files import write_json, write_text
from alignzoo_compare.board import Board
from alignzoo_compare.report.summary import Summary, summarise_board
from alignzoo_compare.report.tables import as_csv, as_markdown, print_summary, to_json

__all__ = ["Summary", "summarise_board", "write_report"]


def write_report(board: Board, console: Console) -> Summary:
    """Print the tables of a board, and write its report into its folder."""
    summary = summarise_board(board)
    print_summary(summary, console)
    write_text(board.folder / "table.md", as_markdown(summary))
    write_text(board.folder / "table.csv", as_csv(summary))
    write_json(board.folder / "summary.json", to_json(summary))
    lines(console, [f"report: {board.folder / 'table.md'}, table.csv, summary.json"])
    return summary

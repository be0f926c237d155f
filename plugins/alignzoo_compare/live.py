"""The table that is shown while a board runs: a terminal redraws it, a pipe gets a line a cell."""

from __future__ import annotations

from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from alignzoo.cli.render import clean
from alignzoo.errors import count
from alignzoo_compare.board import Board, Row, count_cells, is_tuned
from alignzoo_compare.grid import Grid
from alignzoo_compare.runner import Progress


class LiveTable:
    """Shows the progress of a board on a console, from `with` to its end.

    Args:
        workers: how many cells run at a time, to estimate the time that is left.
    """

    def __init__(self, board: Board, console: Console, workers: int):
        self.board, self.console, self.workers = board, console, workers
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.told = 0  # rows that a line was printed for

    def __enter__(self) -> LiveTable:
        self.console.print(Text(describe_grid(self.board.grid)))
        if self.console.is_interactive:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.stop()

    def show(self, progress: Progress) -> None:
        """Show the state of the board."""
        if self.console.is_interactive:
            table = progress_table(self.board, progress)
            state = Text(clean(self.describe(progress)), style="dim")
            self.live.update(Group(table, state), refresh=True)
            return
        for row in progress.finished[self.told :]:
            left = format_seconds(self.seconds_left(progress))
            done = f"{len(self.board.rows)}/{count_cells(self.board)}"
            self.console.print(
                Text(clean(f"{done}  {describe_row(row)}  {left} left")), soft_wrap=True
            )
        self.told = len(progress.finished)

    def describe(self, progress: Progress) -> str:
        """Return what is running, how much is done, and the time left, as a line."""
        names = ", ".join(cell.name for cell in progress.running)
        done = f"{len(self.board.rows)} of {count(count_cells(self.board), 'cell')}"
        return f"{done}, {format_seconds(self.seconds_left(progress))} left; running {names}"

    def seconds_left(self, progress: Progress) -> float | None:
        """Return the seconds left if the other cells take as long as those finished so far."""
        if not progress.finished:
            return None
        missing = count_cells(self.board) - len(self.board.rows)
        return max(missing, 0) * progress.seconds / len(progress.finished)


def progress_table(board: Board, progress: Progress) -> Table:
    """Return a table of the cells: trials and seeds done, and the mean score so far."""
    grid = board.grid
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("entry")
    for task in grid.tasks:
        table.add_column(clean(task))
    running = {(cell.entry, cell.task) for cell in progress.running}
    for entry in grid.entries:
        cells = []
        for task in grid.tasks:
            text = describe_place(board, entry, task)
            style = "bold" if (entry, task) in running else ""
            cells.append(Text(text, style=style))
        table.add_row(Text(clean(entry)), *cells)
    return table


def describe_place(board: Board, entry: str, task: str) -> str:
    """Return the progress of an entry on a task: `trials 2/3`, or `seeds 1/5  0.512`."""
    grid = board.grid
    trials, finals = board.find("trial", entry, task), board.find("final", entry, task)
    refused = [row for row in [*trials, *finals] if row["status"] == "refused"]
    if refused:
        return "does not apply"
    if is_tuned(grid, entry) and not finals:
        return f"trials {len(trials)}/{grid.trials}"
    scores = [s for row in finals if row["status"] == "finished" for s in row["items"]["score"]]
    failed = sum(row["status"] == "failed" for row in finals)
    mean = f"  {sum(scores) / len(scores):.3f}" if scores else ""
    return f"seeds {len(finals)}/{grid.seeds}{mean}" + f"  {failed} failed" * (failed > 0)


def describe_row(row: Row) -> str:
    """Return a row as a line: the cell, and its score or why it has none."""
    name = f"{row['entry']} {row['task']} " + (
        f"trial {row['number'] + 1}" if row["kind"] == "trial" else f"seed {row['number']}"
    )
    if row["status"] != "finished":
        return f"{name}: {row['status']}: {row['error']}"
    scores = row["items"]["score"]
    return f"{name}: {sum(scores) / len(scores):.3f}"


def describe_grid(grid: Grid) -> str:
    """Return a grid in a line."""
    return (
        f"{count(len(grid.entries), 'entry', 'entries')}, {count(len(grid.tasks), 'task')}, "
        f"{count(grid.seeds, 'seed')}, {grid.budget} each, {count(grid.trials, 'trial')} on dev"
    )


def format_seconds(seconds: float | None) -> str:
    """Return a time to wait, `1 h 20 min` or `40 s`; a question mark if it is unknown."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

"""The terminal as a `UI` of the core: progress bars on a terminal, plain lines in a pipe."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alignzoo.cli.quiet import Log
from alignzoo.cli.render import clean
from alignzoo.ui import Advance, Update

PLAIN_WIDTH = 80


def console_for(stream: TextIO) -> Console:
    """Return a console without automatic styles, at least 80 columns wide in a pipe."""
    is_terminal = stream.isatty()
    width = None if is_terminal else max(PLAIN_WIDTH, shutil.get_terminal_size().columns)
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    # With FORCE_COLOR, rich takes a pipe for a terminal; progress bars do not belong in a file.
    console.is_interactive = is_terminal and not console.is_dumb_terminal
    return console


class Terminal:
    """The `UI` of the core on a stream that libraries do not write to."""

    def __init__(self, stream: TextIO, log: Log | None = None):
        self.console, self.log = console_for(stream), log
        self.bar: Progress | None = None  # the one that was shown last
        if log is not None:
            log.show, log.pause = self.note, self.pause

    def opened(self, folder: Path) -> None:
        """Move the log into the folder of the run."""
        if self.log is not None:
            self.log.move_to(folder / "log.txt")

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(Text(clean(text)), soft_wrap=not self.console.is_interactive)

    def pause(self) -> None:
        """Stop the progress bar, until there is progress again."""
        if self.bar is not None:
            self.bar.stop()

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show a spinner, or a line in a pipe."""
        if not self.console.is_interactive:
            self.note(text)
            yield
            return
        with self._bar(SpinnerColumn(), _words("description"), transient=True) as bar:
            bar.add_task(clean(text), total=None)
            yield

    @contextmanager
    def progress(self, total: int | None, metric: str | None) -> Iterator[Update]:
        """Show a bar with the loss and the progress metric, or a line per tenth in a pipe."""

        def describe(step: int, metrics: Mapping[str, float]) -> str:
            shown = ["loss", *([metric] if metric and metric != "loss" else [])]
            parts = [f"step {step}/{total}" if total is not None else f"step {step}"]
            parts += [f"{name} {metrics[name]:.4g}" for name in shown if name in metrics]
            return "  ".join(parts)

        if not self.console.is_interactive:
            due = milestones()

            def line(step: int, fraction: float, metrics: Mapping[str, float]) -> None:
                if due(fraction):
                    self.note(f"{fraction:4.0%}  {describe(step, metrics)}")

            yield line
            return
        columns = (
            _words("description"),
            BarColumn(20),
            _words("state"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with self._bar(*columns) as bar:
            task = bar.add_task("training", total=1.0, state="")

            def show(step: int, fraction: float, metrics: Mapping[str, float]) -> None:
                bar.start()  # unless it is shown, as it is if no debugger has stopped it
                bar.update(task, completed=fraction, state=clean(describe(step, metrics)))

            yield show

    @contextmanager
    def items(self, total: int, text: str) -> Iterator[Advance]:
        """Show a bar that counts, or a line per tenth in a pipe."""
        if not self.console.is_interactive:
            self.note(f"{text} ({total})")
            due, done = milestones(seconds=10), 0

            def line(n: int) -> None:
                nonlocal done
                done += n
                if due(done / max(total, 1)):
                    self.note(f"  {done}/{total}")

            yield line
            return
        columns = (
            _words("description"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with self._bar(*columns, transient=True) as bar:
            task = bar.add_task(clean(text), total=total)

            def advance(n: int) -> None:
                bar.start()
                bar.advance(task, n)

            yield advance

    def _bar(self, *columns: ProgressColumn, transient: bool = False) -> Progress:
        # rich would print the output of libraries above the bar; it belongs in the log.
        self.bar = Progress(
            *columns,
            console=self.console,
            transient=transient,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        return self.bar


def milestones(every: float = 0.1, seconds: float = 0.0) -> Callable[[float], bool]:
    """Return a function that says if a line is due at a fraction of the work.

    One is due for each further `every`, but at most one per `seconds`.
    """
    reached, last = 0, time.monotonic()

    def due(fraction: float) -> bool:
        nonlocal reached, last
        # Floating point: 0.3 / 0.1 is a little less than 3.
        now, clock = int(fraction / every + 1e-9), time.monotonic()
        if now <= reached or clock - last < seconds:
            return False
        reached, last = now, clock
        return True

    return due


def _words(field: str) -> TextColumn:
    where = "task.description" if field == "description" else f"task.fields[{field}]"
    return TextColumn(f"{{{where}}}", markup=False)

"""The terminal as the core sees it: bars where someone is looking, plain lines in a pipe."""

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
    """A console that styles only what we ask it to, at least 80 columns wide in a pipe."""
    looking = stream.isatty()
    width = None if looking else max(PLAIN_WIDTH, shutil.get_terminal_size().columns)
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    # FORCE_COLOR makes a pipe a terminal in rich's eyes; a bar in a file is still no use.
    console.is_interactive = looking and not console.is_dumb_terminal
    return console


class Terminal:
    """The `UI` that the core talks to, on one stream of a quiet terminal."""

    def __init__(self, stream: TextIO, log: Log | None = None):
        self.console, self.log = console_for(stream), log

    def opened(self, folder: Path) -> None:
        if self.log is not None:
            self.log.move_to(folder / "log.txt")

    def note(self, text: str) -> None:
        self.console.print(Text(clean(text)), soft_wrap=not self.console.is_interactive)

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        if not self.console.is_interactive:
            self.note(text)
            yield
            return
        with self._bar(SpinnerColumn(), _words("description"), transient=True) as bar:
            bar.add_task(clean(text), total=None)
            yield

    @contextmanager
    def progress(self, total: int | None, headline: str | None) -> Iterator[Update]:
        def told(step: int, metrics: Mapping[str, float]) -> str:
            shown = ["loss", *([headline] if headline and headline != "loss" else [])]
            parts = [f"step {step}/{total}" if total is not None else f"step {step}"]
            parts += [f"{name} {metrics[name]:.4g}" for name in shown if name in metrics]
            return "  ".join(parts)

        if not self.console.is_interactive:
            due = milestones()

            def line(step: int, fraction: float, metrics: Mapping[str, float]) -> None:
                if due(fraction):
                    self.note(f"{fraction:4.0%}  {told(step, metrics)}")

            yield line
            return
        columns = (
            _words("description"),
            BarColumn(20),
            _words("told"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with self._bar(*columns) as bar:
            task = bar.add_task("training", total=1.0, told="")

            def show(step: int, fraction: float, metrics: Mapping[str, float]) -> None:
                bar.update(task, completed=fraction, told=clean(told(step, metrics)))

            yield show

    @contextmanager
    def items(self, total: int, text: str) -> Iterator[Advance]:
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
            yield lambda n: bar.advance(task, n)

    def _bar(self, *columns: ProgressColumn, transient: bool = False) -> Progress:
        # rich would put what libraries print above the bar; it belongs in the log.
        return Progress(
            *columns,
            console=self.console,
            transient=transient,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def milestones(every: float = 0.1, seconds: float = 0.0) -> Callable[[float], bool]:
    """Whether a line is due at this fraction: at each tenth, and not sooner than `seconds`."""
    reached, spoken = 0, time.monotonic()

    def due(fraction: float) -> bool:
        nonlocal reached, spoken
        # 0.3 / 0.1 is a little less than 3.
        now, clock = int(fraction / every + 1e-9), time.monotonic()
        if now <= reached or clock - spoken < seconds:
            return False
        reached, spoken = now, clock
        return True

    return due


def _words(field: str) -> TextColumn:
    where = "task.description" if field == "description" else f"task.fields[{field}]"
    return TextColumn(f"{{{where}}}", markup=False)

"""Messages and progress of a run. The terminal is one implementation, `Silent` another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

Update = Callable[[int, float, Mapping[str, float]], None]  # step, fraction done, metrics
Advance = Callable[[int], None]


class UI(Protocol):
    """Where a run reports to."""

    def opened(self, folder: Path) -> None:
        """Use the folder of the run, which exists now, for the log."""

    def note(self, text: str) -> None:
        """Show a line to the user."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Show that something takes a while whose progress is unknown."""

    def progress(self, total: int | None, metric: str | None) -> AbstractContextManager[Update]:
        """Show training: `total` steps if known, and a metric to show next to the loss."""

    def items(self, total: int, text: str) -> AbstractContextManager[Advance]:
        """Show the progress of something counted, such as completions to generate."""


class Silent:
    """A UI that shows nothing."""

    def opened(self, folder: Path) -> None: ...

    def note(self, text: str) -> None: ...

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        yield

    @contextmanager
    def progress(self, total: int | None, metric: str | None) -> Iterator[Update]:
        yield lambda step, fraction, metrics: None

    @contextmanager
    def items(self, total: int, text: str) -> Iterator[Advance]:
        yield lambda n: None


class Nested:
    """The UI of a run inside another run: it keeps the log of the outer one."""

    def __init__(self, outer: UI):
        self.note, self.phase = outer.note, outer.phase
        self.progress, self.items = outer.progress, outer.items

    def opened(self, folder: Path) -> None: ...

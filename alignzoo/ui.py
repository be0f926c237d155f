"""What the core tells whoever is watching. The terminal is one implementation, silence another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

Update = Callable[[int, float, Mapping[str, float]], None]  # step, fraction done, metrics
Advance = Callable[[int], None]


class UI(Protocol):
    def opened(self, folder: Path) -> None:
        """The folder of the run exists now; the log belongs there."""

    def note(self, text: str) -> None:
        """One line that the user should read."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Something that takes a while and cannot be counted."""

    def progress(self, total: int | None, headline: str | None) -> AbstractContextManager[Update]:
        """Training: `total` steps if known, and the metric to show beside the loss."""

    def items(self, total: int, text: str) -> AbstractContextManager[Advance]:
        """Something counted, such as completions to generate."""


class Silent:
    """Tells nobody."""

    def opened(self, folder: Path) -> None: ...

    def note(self, text: str) -> None: ...

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        yield

    @contextmanager
    def progress(self, total: int | None, headline: str | None) -> Iterator[Update]:
        yield lambda step, fraction, metrics: None

    @contextmanager
    def items(self, total: int, text: str) -> Iterator[Advance]:
        yield lambda n: None


class Nested:
    """What a run tells that another one has started: all but where its log belongs."""

    def __init__(self, outer: UI):
        self.note, self.phase = outer.note, outer.phase
        self.progress, self.items = outer.progress, outer.items

    def opened(self, folder: Path) -> None: ...

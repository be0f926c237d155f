"""Candidates that are made in the background, in a fixed order, while people answer."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Condition, Thread

from alignzoo_label.candidates import Candidates


class Source:
    """Candidates in the order in which a thread makes them.

    `error` is the exception that ended the thread early, if one did.
    """

    def __init__(self, candidates: Iterator[Candidates], size: int):
        self.made: list[Candidates] = []
        self.unusable = 0  # prompts with too few different completions
        self.done = False
        self.error: Exception | None = None
        self._candidates, self._size = candidates, size
        self._changed = Condition()
        self._thread = Thread(target=self._make, daemon=True)

    def start(self) -> None:
        """Begin to make candidates."""
        self._thread.start()

    def _make(self) -> None:
        try:
            for one in self._candidates:
                with self._changed:
                    if self.done:
                        return
                    if len(one.completions) < self._size:
                        self.unusable += 1
                    else:
                        self.made.append(one)
                    self._changed.notify_all()
        except Exception as error:
            self.error = error
        finally:
            self.stop()

    def stop(self) -> None:
        """Make no more."""
        with self._changed:
            self.done = True
            self._changed.notify_all()

    def wait_for(self, n: int, seconds: float | None = None) -> bool:
        """Wait until there are n candidates; return False if there are not after that time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.made) >= n or self.done, seconds)
            return len(self.made) >= n

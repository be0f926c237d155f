"""Signals that end a run: Ctrl-C, SIGTERM and SIGHUP become one exception.

A run that trains defers them to the end of the step in progress, so that it can save a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run. `exit_code` is 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int):
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        super().__init__(self.name)


@dataclass
class _State:
    received: int = 0  # the number of the first signal, 0 if there was none
    deferred: bool = False
    caught: bool = False  # inside `catch_signals`


_state = _State()


def received() -> int:
    """Return the number of the signal that was received, 0 if there was none."""
    return _state.received


@contextmanager
def catch_signals() -> Iterator[None]:
    """Raise `Interrupted` when a signal comes during the block, or defer it if told to.

    Of further signals, only Ctrl-C counts: it is not deferred. A signal that is ignored, as by
    nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _state.received, _state.deferred, _state.caught = 0, False, True
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.received, _state.deferred, _state.caught = 0, False, False


def _handle(number: int, frame: Any) -> None:
    first = not _state.received
    _state.received = _state.received or number
    if first and not _state.deferred:
        raise Interrupted(number)
    if not first and number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)  # a third one needs no Python to work
        raise Interrupted(number)


@contextmanager
def deferred(defer: bool = True) -> Iterator[None]:
    """Defer signals to the end of the block, which may look at `received`.

    With False, one that comes during the block ends it at once, whatever is around it.
    """
    before = _state.deferred
    _state.deferred = defer
    try:
        yield
    finally:
        _state.deferred = before
    if _state.received and not before:
        raise Interrupted(_state.received)


def is_interruption(error: BaseException) -> bool:
    """Return True if an exception is the user's interruption of the program.

    While signals are caught, a plain `KeyboardInterrupt` is not: some code raised it.
    """
    if isinstance(error, Interrupted):
        return True
    return isinstance(error, KeyboardInterrupt) and not _state.caught

"""Limits on code of others, such as a chat template: how long it runs, how much it builds.

jinja's sandbox keeps a template from the machine, but not from looping or growing without end.
"""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REPEAT = 1.0  # seconds between the signals, in case an exception was swallowed


@contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Raise TimeoutError or MemoryError in a block that takes too many seconds or new bytes.

    In other threads than the main one it runs without limits. Memory is limited on Linux.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with limited_time(seconds), limited_memory(memory):
        yield


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes too many seconds.

    Python has signals in its main thread alone: in others the block runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"it runs for more than {seconds:g} seconds")

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    due, interval = signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT)
    try:
        yield
    finally:
        # A timer that ran before goes on: pytest has one for each test.
        due = max(due - (time.monotonic() - started), 1e-3) if due else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, due, interval)


@contextmanager
def limited_memory(memory: int) -> Iterator[None]:
    """Raise MemoryError in a block that makes this process grow by more than `memory` bytes."""
    used = address_space()
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    if used is None or before != resource.RLIM_INFINITY:
        yield  # a limit of the user's own is kept
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def address_space() -> int | None:
    """Return the bytes of this process's address space; None if the system does not say."""
    try:
        # Without a buffer it takes 40 us, half of what Path.read_text does: this is done per row.
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(100).split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None

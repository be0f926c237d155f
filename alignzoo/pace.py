"""How fast a server is asked, by all threads together."""

from __future__ import annotations

import threading
import time

from alignzoo.errors import RunFailed


class Pace:
    """At most `per_minute` requests in a minute, one after the other at equal distances; 0: as many
    as come. A server that asks for a pause holds all of them up."""

    def __init__(self, per_minute: float = 0.0):
        self.distance = 60.0 / per_minute if per_minute else 0.0  # seconds
        self.next = 0.0  # when the next request may begin
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def wait(self) -> None:
        """Until it is this request's turn."""
        with self.lock:
            now = time.monotonic()
            turn = max(self.next, now)
            self.next = turn + self.distance
        self.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """No request begins before that."""
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """`RunFailed` where `stop` ends it."""
        if self.stopped.wait(seconds) if seconds > 0 else self.stopped.is_set():
            raise RunFailed("stopped before the server was asked again")

    def stop(self) -> None:
        """Whoever waits, or comes to wait, gives up."""
        self.stopped.set()

    def go(self) -> None:
        self.stopped.clear()

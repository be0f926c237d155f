"""Asking a server over HTTP, JSON in and JSON out, again where it fails in passing.

A key comes from the environment alone, goes to the address that was named and to no other (no
redirect is followed), and is in no message.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from alignzoo.errors import BadInput, RunFailed

PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may not have
LONGEST_PAUSE = 30.0  # seconds
LONGEST_HOLD = 600.0  # seconds that a server may ask us to stay away


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


class Unanswered(RunFailed):
    """Asked as often as it was to be, the server did not answer; it may at another time."""

    def with_hint(self, more: str) -> Unanswered:
        """The same with another line to its hint."""
        hint = f"{self.hint}\n  {more}" if self.hint else more
        return Unanswered(self.problem, where=self.where, hint=hint)


class Refused(RunFailed):
    """The server understood, and will not do it however often it is asked. `status` is of HTTP."""

    def __init__(self, problem: str, status: int, *, hint: str | None = None):
        super().__init__(problem, hint=hint)
        self.status = status


@dataclass(frozen=True)
class Remote:
    """A server at a URL. `who` asks, for messages; `key` names the variable that holds the key;
    `hint` says what to do where nobody answers, `refusal(status, path)` where it refuses; `again`
    is called before each further attempt. All threads keep to one pace."""

    url: str
    who: str
    key: str
    timeout: float
    retries: int
    hint: str | None = None
    refusal: Callable[[int, str], str | None] = lambda status, path: None
    again: Callable[[], None] = lambda: None
    pace: Pace = field(default_factory=Pace)

    def ask(self, path: str, body: Any = None, attempts: int | None = None) -> Any:
        """POST a body, or GET without one; the JSON of the answer, or {} of one that is not."""
        attempts = self.retries + 1 if attempts is None else attempts
        for attempt in range(attempts):
            self.pace.wait()
            try:
                return self.once(path, body)
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                self.pace.hold(retry_after(error))
            if attempt + 1 < attempts:
                self.again()
                self.pace.sleep(min(2.0**attempt, LONGEST_PAUSE))
        times = f"asked {attempts} times, " if attempts > 1 else ""
        raise Unanswered(
            f"{self.who}: {times}no answer from {self.url}/{path}: {reason}", hint=self.hint
        )

    def once(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with urllib.request.build_opener(Stay).open(request, timeout=self.timeout) as response:
                text = response.read().decode()
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else {}
        except urllib.error.HTTPError as error:
            if error.code in PASSING:
                raise
            said = error.read().decode(errors="replace")[:500]
            said = said.replace(key, "***") if key else said
            hint = self.refusal(error.code, path)
            if error.code in (401, 403):
                hint = f"put the server's key into the environment variable {self.key}"
            raise Refused(
                f"{self.who}: the server refused {path}: {error.code} {said}",
                error.code,
                hint=hint,
            ) from None


def retry_after(error: Exception) -> float:
    """The seconds for which a server asks us to stay away, by its header Retry-After: a number, or
    a date (RFC 9110, section 10.2.3); 0 where it does not."""
    told = error.headers.get("Retry-After") if isinstance(error, urllib.error.HTTPError) else None
    if told is None:
        return 0.0
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(0.0, seconds), LONGEST_HOLD)  # NaN is no longer than 0


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key in the headers would go with it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def address(url: str, who: str, example: str) -> str:
    """The URL without the slash at its end; `BadInput` where it is none, or holds a password."""
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{who}: {url!r} is not an address", hint=f"write {example}")
    if "?" in url or "#" in url:
        raise BadInput(
            f"{who}: the address has more to it than a host and a path, which would be written "
            "down with the run, a key as well",
            hint=f"write {example}; a key is taken from the environment alone",
        )
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise BadInput(
            f"{who}: the address holds a password, which would be written down with the run",
            hint="put the server's key into the environment instead",
        )
    return url.rstrip("/")

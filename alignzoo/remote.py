"""JSON over HTTP, with a rate limit and retries.

An API key is read from an environment variable only, is sent to the given server only (redirects
are not followed), and appears in no message.
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

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # statuses that are worth another attempt
MAX_BACKOFF = 30.0  # seconds
MAX_PAUSE = 600.0  # seconds, the longest Retry-After that is obeyed


class RateLimiter:
    """Spaces requests evenly, at most `per_minute` of them in a minute (0: no limit).

    All threads share it, so a pause that the server asks for delays every request.
    """

    def __init__(self, per_minute: float = 0.0):
        self.interval = 60.0 / per_minute if per_minute else 0.0  # seconds
        self.next_start = 0.0  # on the monotonic clock
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def wait(self) -> None:
        """Block until the next request may start."""
        with self.lock:
            now = time.monotonic()
            start = max(self.next_start, now)
            self.next_start = start + self.interval
        self.sleep(start - now)

    def pause(self, seconds: float) -> None:
        """Let no request start for this long."""
        with self.lock:
            self.next_start = max(self.next_start, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep; raise `RunFailed` as soon as `stop` is called."""
        if self.stopped.wait(seconds) if seconds > 0 else self.stopped.is_set():
            raise RunFailed("stopped before the request was sent again")

    def stop(self) -> None:
        """Make every present and future wait fail, until `reset`."""
        self.stopped.set()

    def reset(self) -> None:
        """Allow requests again after `stop`."""
        self.stopped.clear()


class NoAnswer(RunFailed):
    """Every attempt failed for a reason that may pass, so it is worth trying again later."""

    def with_hint(self, more: str) -> NoAnswer:
        """Return a copy with another line added to the hint."""
        hint = f"{self.hint}\n  {more}" if self.hint else more
        return NoAnswer(self.problem, where=self.where, hint=hint)


class Refused(RunFailed):
    """The server rejected the request, with this HTTP status; trying again will not help."""

    def __init__(self, problem: str, status: int, *, hint: str | None = None):
        super().__init__(problem, hint=hint)
        self.status = status


@dataclass(frozen=True)
class JsonClient:
    """A client of one JSON server, safe to use from several threads.

    Messages begin with `user`, the part of the program that needs the server. `key_variable` names
    the environment variable with the API key. `hint(status, path)` says what to do about an error,
    status None if there was no answer at all. `on_retry` is called before each attempt after the
    first.
    """

    url: str
    user: str
    key_variable: str
    timeout: float  # seconds per attempt
    retries: int
    hint: Callable[[int | None, str], str | None] = lambda status, path: None
    on_retry: Callable[[], None] = lambda: None
    limiter: RateLimiter = field(default_factory=RateLimiter)

    def request(self, path: str, body: Any = None, attempts: int | None = None) -> Any:
        """POST `body`, or GET if there is none, and return the JSON of the reply.

        A reply that is not JSON, such as a web page, gives {}. Raise `NoAnswer` after the last
        attempt, and `Refused` at once for a status that is not transient.
        """
        attempts = self.retries + 1 if attempts is None else attempts
        for attempt in range(attempts):
            self.limiter.wait()
            try:
                return self.send(path, body)
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                self.limiter.pause(parse_retry_after(error))
            if attempt + 1 < attempts:
                self.on_retry()
                self.limiter.sleep(min(2.0**attempt, MAX_BACKOFF))
        times = f" after {attempts} attempts" if attempts > 1 else ""
        raise NoAnswer(
            f"{self.user}: no answer from {self.url}/{path}{times}: {reason}",
            hint=self.hint(None, path),
        )

    def send(self, path: str, body: Any) -> Any:
        """Make one attempt; raise `Refused`, or the error that made it fail."""
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(request, timeout=self.timeout) as response:
                text = response.read().decode()
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else {}
        except urllib.error.HTTPError as error:
            if error.code in TRANSIENT:
                raise
            details = error.read().decode(errors="replace")[:500]
            details = details.replace(key, "***") if key else details
            hint = self.hint(error.code, path)
            if error.code in (401, 403):
                hint = f"put the server's key into the environment variable {self.key_variable}"
            raise Refused(
                f"{self.user}: the server refused {path}: {error.code} {details}",
                error.code,
                hint=hint,
            ) from None


def parse_retry_after(error: Exception) -> float:
    """Return the seconds to wait by a reply's Retry-After header, at most MAX_PAUSE.

    The header holds a number or a date (RFC 9110, section 10.2.3); without a valid one, return 0.
    """
    header = error.headers.get("Retry-After") if isinstance(error, urllib.error.HTTPError) else None
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(0.0, seconds), MAX_PAUSE)  # max() also turns NaN into 0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key in the headers to another server."""

    def redirect_request(self, *_: Any) -> None:
        """Return None: urllib then reports the redirect as an error."""
        return


def check_url(url: str, user: str, example: str) -> str:
    """Return the URL without a trailing slash; raise `BadInput` if it is none or holds a secret."""
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{user}: {url!r} is not a URL", hint=f"write {example}")
    if "?" in url or "#" in url:
        raise BadInput(
            f"{user}: the URL may hold only host and path: it is saved with the run, and a query "
            "string could leak a key",
            hint=f"write {example}; a key is read from the environment only",
        )
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise BadInput(
            f"{user}: the URL holds a password, and it is saved with the run",
            hint="put the server's key into the environment instead",
        )
    return url.rstrip("/")

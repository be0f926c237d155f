"""The rate limit of requests to a server, and its retries."""

from __future__ import annotations

import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime

import pytest

from alignzoo.errors import RunFailed
from alignzoo.remote import MAX_PAUSE, JsonClient, RateLimiter, parse_retry_after


def test_threads_share_one_rate():
    limiter, starts = RateLimiter(per_minute=1200), []  # one in 50 ms

    def one(_: int) -> None:
        limiter.wait()
        starts.append(time.monotonic())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    starts.sort()
    assert starts[-1] - starts[0] >= 7 * 0.05 - 0.01


def test_a_pause_delays_every_request_and_no_limit_delays_none():
    limiter = RateLimiter()
    started = time.monotonic()
    limiter.wait()
    limiter.wait()
    assert time.monotonic() - started < 0.05
    limiter.pause(0.2)
    limiter.pause(0.1)  # is over before the other
    limiter.wait()
    assert time.monotonic() - started >= 0.2


def test_stopping_makes_waits_fail_until_a_reset():
    limiter = RateLimiter()
    limiter.pause(60)
    threading.Timer(0.05, limiter.stop).start()
    with pytest.raises(RunFailed, match="stopped"):
        limiter.wait()
    limiter.reset()
    limiter.next_start = 0.0
    limiter.wait()


def error(header: str | None, status: int = 429) -> urllib.error.HTTPError:
    headers = Message()
    if header is not None:
        headers["Retry-After"] = header
    return urllib.error.HTTPError("http://localhost", status, "slow down", headers, None)


def test_retry_after_is_a_number_of_seconds_or_a_date():
    assert parse_retry_after(error("7")) == 7
    assert parse_retry_after(error("0.5", 503)) == 0.5
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 28 < parse_retry_after(error(format_datetime(later, usegmt=True))) <= 30
    assert parse_retry_after(error("Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert parse_retry_after(error("1e9")) == MAX_PAUSE
    for invalid in (error(None), error("soon"), error("nan"), error("-5"), OSError()):
        assert parse_retry_after(invalid) == 0


def test_on_retry_is_called_before_each_attempt_after_the_first(monkeypatch):
    monkeypatch.setattr("alignzoo.remote.MAX_BACKOFF", 0.0)
    retries, errors = [], [error("0"), OSError("gone"), None]

    class Flaky(JsonClient):
        def send(self, path, body):
            error = errors.pop(0)
            if error is not None:
                raise error
            return "reply"

    client = Flaky("http://x", "user", "KEY", 1.0, 4, on_retry=lambda: retries.append(1))
    assert client.request("path") == "reply"
    assert len(retries) == 2

"""How fast a server is asked, and when again."""

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
from alignzoo.remote import LONGEST_HOLD, Pace, Remote, retry_after


def test_a_rate_is_kept_by_all_threads_together():
    pace, begun = Pace(per_minute=1200), []  # one in 50 ms

    def one(_: int) -> None:
        pace.wait()
        begun.append(time.monotonic())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    begun.sort()
    assert begun[-1] - begun[0] >= 7 * 0.05 - 0.01


def test_a_pause_holds_up_all_and_no_rate_nobody():
    pace = Pace()
    started = time.monotonic()
    pace.wait()
    pace.wait()
    assert time.monotonic() - started < 0.05
    pace.hold(0.2)
    pace.hold(0.1)  # is over by then
    pace.wait()
    assert time.monotonic() - started >= 0.2


def test_who_waits_gives_up_when_it_is_stopped_and_not_afterwards():
    pace = Pace()
    pace.hold(60)
    threading.Timer(0.05, pace.stop).start()
    with pytest.raises(RunFailed, match="stopped"):
        pace.wait()
    pace.go()
    pace.next = 0.0
    pace.wait()


def error(told: str | None, status: int = 429) -> urllib.error.HTTPError:
    headers = Message()
    if told is not None:
        headers["Retry-After"] = told
    return urllib.error.HTTPError("http://localhost", status, "slow down", headers, None)


def test_retry_after_is_a_number_of_seconds_or_a_date():
    assert retry_after(error("7")) == 7
    assert retry_after(error("0.5", 503)) == 0.5
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 28 < retry_after(error(format_datetime(later, usegmt=True))) <= 30
    assert retry_after(error("Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert retry_after(error("1e9")) == LONGEST_HOLD
    for nothing in (error(None), error("soon"), error("nan"), error("-5"), OSError()):
        assert retry_after(nothing) == 0


def test_each_attempt_after_the_first_is_told(monkeypatch):
    monkeypatch.setattr("alignzoo.remote.LONGEST_PAUSE", 0.0)
    again, troubles = [], [error("0"), OSError("gone"), None]

    class Flaky(Remote):
        def once(self, path, body):
            trouble = troubles.pop(0)
            if trouble is not None:
                raise trouble
            return "there"

    remote = Flaky("http://x", "who", "KEY", 1.0, 4, again=lambda: again.append(1))
    assert remote.ask("path") == "there"
    assert len(again) == 2

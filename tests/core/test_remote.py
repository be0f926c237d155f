"""The rate limit of requests to a server, and its retries."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote

import pytest

from alignzoo.errors import BadInput, RunFailed
from alignzoo.remote import (
    MAX_PAUSE,
    JsonClient,
    NoAnswer,
    RateLimiter,
    Refused,
    check_url,
    mask,
    parse_retry_after,
)


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


KEY = 'Sk/Secret+Key=1"ü'
ECHOES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "lower": str.lower,
    "upper": str.upper,
    "quoted for a URL": lambda key: quote(key, safe=""),
    "quoted in lower case": lambda key: quote(key, safe="").lower(),
    "every byte quoted": lambda key: "".join(f"%{byte:02X}" for byte in key.encode()),
    "quoted twice": lambda key: quote(quote(key, safe="")),
    "JSON": json.dumps,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "JSON with slashes escaped": lambda key: json.dumps(key).replace("/", "\\/"),
}


@pytest.mark.parametrize("form", list(ECHOES))
def test_a_key_is_masked_however_it_is_written(form: str):
    text = mask(f"<{ECHOES[form](KEY)}> and {ECHOES[form](KEY)}", [KEY])
    assert text.replace('\\"', "").replace('"', "") in ("<***> and ***", "<\\***> and \\***")


def test_masking_hostile_text_is_quick():
    started = time.monotonic()
    for text in ("\\" * 50_000, "%25" * 20_000, "a" * 50_000, "%" * 50_000):
        assert mask(text, ["a" * 40 + "b"]) == text
    assert time.monotonic() - started < 5


@pytest.fixture
def echo() -> Iterator[tuple[str, list[str]]]:
    """A server that answers with the key in lower case behind some text, and notes its paths."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            key = self.headers.get("Authorization", "").removeprefix("Bearer ").lower()
            body = ("x" * 490 + key + self.path).encode()
            self.send_response(429 if "busy" in self.path else 400, f"no {key}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_no_message_holds_what_a_server_echoes(echo, monkeypatch):
    url, paths = echo
    monkeypatch.setenv("KEY", "TopSecretKey1234567890")
    monkeypatch.setenv("ALIGNZOO_PART", "Hidden/Part1")
    client = JsonClient(url + "/{ALIGNZOO_PART}", "user", "KEY", 5.0, 0)
    with pytest.raises(Refused) as refused:
        client.request("models")
    with pytest.raises(NoAnswer) as unanswered:
        client.request("busy")
    assert paths == ["/Hidden%2FPart1/models", "/Hidden%2FPart1/busy"]
    for error in (refused, unanswered):
        # A key that is cut off by the limit of the message is masked as well.
        text = error.value.message.lower()
        assert "topsecret" not in text and "hidden" not in text and "***" in text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:secret@host/v1",
        "http://user:secret@host/v1",
        "http://user:sec/ret@host/v1",
        "http://user:secret%40host/v1",
        "http://host/v1?key=secret",
        "http://host/sk-secret/v1",
        "http://host/v1/token=secret",
        "http://host/0123secret4567abcdef89/v1",
        "http://host/%73k-secret/v1",
        "http://host/MY%5fsecret/v1",
        "http://host/{HOME}/secret",
        "http://host/{ALIGNZOO_UNSET}/secret",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(monkeypatch, url: str):
    monkeypatch.setenv("KEY", "my_SECRET")
    monkeypatch.delenv("ALIGNZOO_UNSET", raising=False)
    with pytest.raises(BadInput) as error:
        check_url(url, "user", "http://localhost/v1", "KEY")
    assert not any(part in error.value.message for part in ("secret", "ret@", "0123"))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1/",
        "HTTPS://api.example.com/openai/deployments/my-gpt4-deployment-2024",
        "http://[::1]:8000/api/v1beta/models",
        "https://abcdef0123456789abcdef.endpoints.example.com/v1",
        "https://host/{ALIGNZOO_PART}/v1",
        "https://host/{KEY}/v1",
    ],
)
def test_other_urls_are_taken_as_they_are(monkeypatch, url: str):
    monkeypatch.setenv("KEY", "EMPTY")
    monkeypatch.setenv("ALIGNZOO_PART", "0123456789abcdef")
    assert check_url(url, "user", "http://localhost/v1", "KEY") == url.rstrip("/")

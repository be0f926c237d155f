"""JSON over HTTP, with a rate limit and retries.

An API key is read from an environment variable only, is sent to the given server only (redirects
are not followed), and appears in no message, however the server writes it. A URL is saved with the
run: a secret in its path is written as the name of an environment variable, `{ALIGNZOO_NAME}`.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Annotated, Any
from urllib.parse import quote, unquote

from annotated_types import Ge, Gt

from alignzoo.errors import BadInput, NotAvailable, RunFailed

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # statuses that are worth another attempt
MAX_BACKOFF = 30.0  # seconds
MAX_PAUSE = 600.0  # seconds, the longest Retry-After that is obeyed
MAX_DETAILS = 500  # characters of a server's error that are shown
VARIABLE = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")  # in a URL
# Parts of a path that look like a secret: a usual beginning, or a long mix of letters and digits.
SECRET = re.compile(
    r"(?i:(?:^|[/:=.])(?:sk|pk|rk|hf|gsk|ghp|xai|key|token|secret|bearer)[-_:=])"
    r"|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}"
)


@dataclass
class ClientOptions:
    """The options after a server's URL, `URL,model=NAME,requests=4`, that all users of one have."""

    model: Annotated[str | None, "model of a server [default: its only one]"] = None
    timeout: Annotated[float, "seconds to wait for a server's reply", Gt(0)] = 60.0
    retries: Annotated[int, "retries of a failed request to a server", Ge(0)] = 4
    requests: Annotated[int, "concurrent requests to a server", Ge(1)] = 16


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
        shown = mask(str(reason), self.secrets())[:MAX_DETAILS]
        raise NoAnswer(
            f"{self.user}: no answer from {self.url}/{path}{times}: {shown}",
            hint=self.hint(None, path),
        )

    def send(self, path: str, body: Any) -> Any:
        """Make one attempt; raise `Refused`, or the error that made it fail."""
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        url = VARIABLE.sub(lambda found: quote(os.environ[found[1]], safe=""), self.url)
        request = urllib.request.Request(f"{url}/{path}", data, headers)
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(request, timeout=self.timeout) as response:
                text = response.read().decode()
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else {}
        except urllib.error.HTTPError as error:
            if error.code in TRANSIENT:
                raise
            details = error.read(100 * MAX_DETAILS).decode(errors="replace")
            details = mask(details, self.secrets())[:MAX_DETAILS]  # a cut key would not be found
            hint = self.hint(error.code, path)
            if error.code in (401, 403):
                hint = f"put the server's key into the environment variable {self.key_variable}"
            raise Refused(
                f"{self.user}: the server refused {path}: {error.code} {details}",
                error.code,
                hint=hint,
            ) from None

    def secrets(self) -> list[str]:
        """Return the values of the environment that are sent to the server."""
        names = [self.key_variable, *VARIABLE.findall(self.url)]
        return [os.environ[name] for name in names if os.environ.get(name)]


def find_model(client: JsonClient, named: str | None) -> str:
    """Return the model `named`, or the only one of an OpenAI-compatible server.

    Raise `NotAvailable` if the server does not answer. It need not list its models if one is named.
    """
    names = []
    try:
        reply = client.request("models", attempts=1)
        names = [str(model["id"]) for model in reply["data"]]
    except Refused as error:
        if named is None or error.status not in (404, 405):
            raise BadInput(error.problem, hint=error.hint) from error
    except NoAnswer as error:
        raise NotAvailable(error.problem, hint=error.hint) from error
    except (KeyError, TypeError):
        pass
    if named is not None:
        return named
    if len(names) != 1:
        raise BadInput(
            f"{client.user} has {len(names)} models, not one",
            where=client.url,
            hint=f"name it: {client.url},model={names[0] if names else 'NAME'}",
        )
    return names[0]


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return the text with `***` for each secret, in any case and with any characters escaped.

    Escapes are those of URLs, also nested (`%2541`), and of JSON.
    """
    for secret in secrets:
        pattern = ""
        for char in secret:
            utf8, utf16 = (
                char.encode(form, "surrogatepass").hex() for form in ("utf-8", "utf-16-be")
            )
            url = re.sub("(..)", r"%(?:25){0,3}\1", utf8)
            code = re.sub("(....)", r"\\\\{1,4}u\1", utf16)
            pattern += rf"(?:\\{{0,4}}{re.escape(char)}|{url}|{code})"
        text = re.sub(pattern, "***", text, flags=re.IGNORECASE)
    return text


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


def is_url(text: str) -> bool:
    """Return whether a name is the URL of a server."""
    return "://" in text


def refuse_keys(options: Iterable[str], user: str, key_variable: str) -> None:
    """Raise `BadInput` if an option is named like an API key, which would be saved with the run."""
    if any("key" in name.lower() or "token" in name.lower() for name in options):
        raise BadInput(f"{user}: a key is read from the environment variable {key_variable} only")


def check_url(url: str, user: str, example: str, key_variable: str) -> str:
    """Return the URL without a trailing slash; raise `BadInput` if it is none or holds a secret.

    The URL is in no message, because it may hold one.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise BadInput(
            f"{user}: this is not a URL: it begins with neither http:// nor https://",
            hint=f"write {example}",
        )
    if "?" in url or "#" in url:
        raise BadInput(
            f"{user}: the URL may hold only host and path: it is saved with the run, and a query "
            "string could leak a key",
            hint=f"write {example}; a key is read from the environment only",
        )
    if "@" in unquote(url):
        raise BadInput(
            f"{user}: the URL holds a password, and it is saved with the run",
            hint="put the server's key into the environment instead",
        )
    check_variables(url, user, key_variable)
    path = unquote(VARIABLE.sub("", url.partition("://")[2].partition("/")[2]))
    key = os.environ.get(key_variable)
    if SECRET.search(path) or (key and mask(url, [key]) != url):
        raise BadInput(
            f"{user}: the path of the URL holds what looks like a key, and is saved with the run",
            hint="put that part into an environment variable, and its name into the URL: "
            "https://HOST/{ALIGNZOO_NAME}/v1",
        )
    return url.rstrip("/")


def check_variables(url: str, user: str, key_variable: str) -> None:
    """Raise `BadInput` if a URL names a variable of the environment that it may not have.

    A URL may come from a recipe file, and must not send any other secret to its server.
    """
    for name in VARIABLE.findall(url):
        if not (name.startswith("ALIGNZOO_") or name == key_variable):
            raise BadInput(
                f"{user}: a URL may only have variables of the environment whose names begin with "
                f"ALIGNZOO_, not {name}"
            )
        if not os.environ.get(name):
            raise BadInput(f"{user}: the URL needs the environment variable {name}")

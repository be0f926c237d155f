"""A server of the page in this process, and clients of it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from alignzoo_label.answers import AnswerFile
from alignzoo_label.candidates import Candidates
from alignzoo_label.choice import AtRandom
from alignzoo_label.server import Page, listen, make_server
from alignzoo_label.session import Session
from alignzoo_label.source import Source


def make_candidates(count: int, texts: Sequence[str] = ("good {}", "poor {}")) -> list[Candidates]:
    """Prompts with completions, whose texts have the prompt's number in them."""
    return [
        Candidates(
            [{"role": "user", "content": f"question {i}"}],
            tuple(text.replace("{}", str(i)) for text in texts),
        )
        for i in range(count)
    ]


def make_session(
    path: Path, candidates: Sequence[Candidates], *, mode: str = "pairs", **settings: Any
) -> Session:
    """A session whose candidates are all there."""
    source = Source(iter(candidates), 2 if mode == "pairs" else 1)
    source.start()
    source.wait_for(len(candidates) + 1)  # that is, until it is done
    return Session(
        AnswerFile(path, mode), source, AtRandom(), **{"repeat": 0.0, "seed": 0, **settings}
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@contextmanager
def serving(session: Session, **settings: Any) -> Iterator[Client]:
    """A client of a server in a thread of this process."""
    settings = {"who": "ann", "host": "127.0.0.1", **settings}
    page = Page(session, commands=lambda: ["alignzoo run dpo"], **settings)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(page, port)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Client(port, page.token, page.cookie)
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listening.close()


class Client:
    """A person without a browser: requests as they are told, with the cookie unless told not to."""

    def __init__(self, port: int, token: str, cookie: str):
        self.port, self.token, self.cookie = port, token, cookie
        self.home = f"http://127.0.0.1:{port}"
        self.url = f"{self.home}/?token={token}"

    def ask(
        self, method: str, path: str, headers: dict[str, str], fields: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """The status and the text of the answer to a request with just these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = urlencode(fields or {}) if method == "POST" else None
        connection.request(method, path, body, {"Host": f"127.0.0.1:{self.port}", **headers})
        response = connection.getresponse()
        text = response.read().decode()
        self.headers = dict(response.getheaders())
        connection.close()
        return response.status, text

    def get(self, path: str = "/") -> str:
        return self.ask("GET", path, self.trusted())[1]

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        return self.ask("POST", path, {**self.trusted(), "Origin": self.home}, fields)

    def answer(self, verdict: str, **fields: str) -> tuple[int, str]:
        """Answer what the page shows."""
        found = re.search(r'name="id" value="(\w+)"', self.get())
        assert found is not None
        return self.post("/answer", **{"id": found[1], "verdict": verdict, **fields})

    def trusted(self) -> dict[str, str]:
        return {"Cookie": f"{self.cookie}={self.token}"}

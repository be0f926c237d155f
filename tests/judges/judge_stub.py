"""A chat server on loopback that answers as a judge, and fails when a test says so."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]  # HTTP status, and the body as an object or as text


def tops(**logprobs: float) -> dict[str, Any]:
    """Return a reply with these log-probs of its only token."""
    top = [{"token": token, "logprob": x} for token, x in logprobs.items()]
    said = max(logprobs, key=lambda token: logprobs[token])
    return {
        "choices": [
            {"message": {"content": said}, "logprobs": {"content": [{"top_logprobs": top}]}}
        ]
    }


def used(reply: dict[str, Any], read: int, written: int) -> dict[str, Any]:
    """Return the reply with the number of tokens read and written."""
    return {**reply, "usage": {"prompt_tokens": read, "completion_tokens": written}}


def text(said: str) -> dict[str, Any]:
    """Return the reply of a server without log-probs."""
    return {"choices": [{"message": {"content": said}, "logprobs": None}]}


def interrupts(at: int) -> Callable[[int], None]:
    """Press Ctrl-C at that question, while the client is waiting."""

    def trouble(n: int) -> None:
        if n == at:
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    return trouble


class Stub:
    """Replies with `trouble(n)` to the nth question, from 1, or else with `answer(body)`."""

    def __init__(self, answer: Callable[[Any], Any]):
        self.answer = answer
        self.trouble: Callable[[int], Reply | None] = lambda n: None
        self.slow = 0.0  # seconds without a reply, for a status of 0
        self.retry_after = "0"  # the header of a status 429
        self.models = ["judge"]
        self.asked: list[Any] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()

    def reply(self, path: str, body: Any) -> Reply:
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.models]}
        if path != "/v1/chat/completions":
            return 404, "no such page"
        with self.lock:
            self.asked.append(body)
            trouble = self.trouble(len(self.asked))
        return trouble or (200, self.answer(body))


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.give(None)

        def do_POST(self) -> None:
            self.give(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def give(self, body: Any) -> None:
            stub.keys.add(self.headers["Authorization"])
            status, answer = stub.reply(self.path, body)
            if status == 0:
                time.sleep(stub.slow)
                return
            said = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", stub.retry_after)
            if 300 <= status < 400:
                self.send_header("Location", "/v1/elsewhere")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # the default of 5 drops concurrent connections

        def handle_error(self, *_: Any) -> None:
            pass  # the client has gone

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()

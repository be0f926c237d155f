"""A server on loopback that speaks the part of vLLM's interface that sampler and teacher use.

It answers with zoo-tiny under the adapters that it was told to load, in a process of threads.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from alignzoo.batch import Example, collate
from alignzoo.data import Codec
from alignzoo.policy import load_policy
from alignzoo.rollout import Sampling, generate

LOADING = threading.Lock()  # transformers loads one model at a time in a process


class Stub:
    def __init__(self):
        self.policies: dict[str, Any] = {"zoo-tiny": load_policy("zoo-tiny")}
        self.decode = Codec(self.policies["zoo-tiny"].tokenizer).decode
        self.lock = threading.Lock()
        self.requests: list[tuple[str, Any]] = []
        self.keys: set[str | None] = set()
        self.failures = 0  # so many completions fail before one is answered
        self.shift = 0.0  # what its log-probs are off by
        self.token_ids = True
        self.refusal: int | None = None
        self.answers_left: int | None = None  # completions until it dies without a reply
        self.max_logprobs = 20
        self.texts = True  # of tokens, in log-probs of prompts
        self.withheld = 0  # positions left out of these
        self.answered: list[int] = []  # the seeds of the completions that it has sent

    @property
    def dead(self) -> bool:
        return self.answers_left == 0

    def restart(self) -> None:
        """Come up again, with the base model only."""
        self.policies, self.answers_left = {"zoo-tiny": self.policies["zoo-tiny"]}, None

    def asked(self, path: str) -> list[Any]:
        return [body for where, body in self.requests if where == path]

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if self.refusal:
            return self.refusal, {"error": {"message": "not for you"}}
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.policies]}
        if path == "/v1/load_lora_adapter":
            name = body["lora_name"]
            if name in self.policies:
                return 400, {"error": {"message": f"The lora adapter '{name}' is already loaded."}}
            self.load(name, body["lora_path"])
            return 200, "Success: LoRA adapter added successfully."
        if path == "/v1/unload_lora_adapter":
            return (200, "Success") if self.policies.pop(body["lora_name"], None) else (404, {})
        if path == "/v1/completions":
            return self.completion(body)
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.load("zoo-tiny", body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if path == "/reset_prefix_cache":
            return 200, ""
        return 404, {"error": {"message": "no such path"}}

    def load(self, name: str, folder: str) -> None:
        with LOADING:
            self.policies[name] = load_policy(folder)

    def completion(self, body: Any) -> tuple[int, Any]:
        if self.failures:
            self.failures -= 1
            return 503, {"error": {"message": "overloaded"}}
        if body["model"] not in self.policies:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        policy = self.policies[body["model"]].eval() or self.policies[body["model"]]
        if "prompt_logprobs" in body:
            return self.prompt_logprobs(policy, body)
        sampling = Sampling(
            body["max_tokens"],
            body["stop_token_ids"],
            body["temperature"],
            max(body["top_k"], 0),
            body["top_p"],
            body["min_p"],
            body["stop"],
            self.decode,
        )
        (drawn,) = generate(policy, [body["prompt"]], [body["seed"]], sampling)
        choice = {
            "text": self.decode(drawn.tokens),
            "finish_reason": "stop" if drawn.ended else "length",
            "logprobs": {"token_logprobs": [x + self.shift for x in drawn.logprobs]},
        }
        if self.token_ids:
            choice["token_ids"] = drawn.tokens
        self.answered.append(body["seed"])
        if self.answers_left is not None:
            self.answers_left -= 1
        return 200, {"choices": [choice]}

    @torch.no_grad()
    def prompt_logprobs(self, policy: Any, body: Any) -> tuple[int, Any]:
        """As vLLM: of each token but the first its log-prob, and those of the K likeliest."""
        first, *rest = body["prompt"]
        top_k = body["prompt_logprobs"]
        if top_k > self.max_logprobs:
            message = f"Requested prompt logprobs of {top_k}, which is greater than max allowed"
            return 400, {"error": {"message": message}}
        if max(body["prompt"]) >= policy.model.config.vocab_size:
            return 400, {"error": {"message": "Token id is out of vocabulary"}}
        out = policy(collate([Example([first], [rest])]), top_k=top_k)
        entries: list[Any] = [None]
        rows = zip(rest, out.logprobs[0], out.top_ids[0], out.top_logprobs[0], strict=True)
        for token, logprob, ids, logprobs in rows:
            known = dict(zip(ids.tolist(), logprobs.tolist(), strict=True)) | {
                token: float(logprob)
            }
            entries.append({str(i): self.entry(policy, i, x) for i, x in known.items()})
        self.answered.append(len(rest))
        if self.answers_left is not None:
            self.answers_left -= 1
        return 200, {"choices": [{"text": "", "prompt_logprobs": entries[self.withheld :]}]}

    def entry(self, policy: Any, token: int, logprob: float) -> dict[str, Any]:
        text = policy.tokenizer.decode([token]) if self.texts else None
        return {"logprob": logprob, "rank": 1, "decoded_token": text}


@contextmanager
def serving(stub: Stub):
    """The address of a server that answers for the stub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Any) -> None:
            with stub.lock:
                if stub.dead:
                    self.close_connection = True
                    return
                stub.requests.append((self.path, body))
                stub.keys.add(self.headers["Authorization"])
                status, answer = stub.answer(self.path, body)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()

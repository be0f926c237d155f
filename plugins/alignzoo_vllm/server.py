"""A vLLM server, by its completions interface: token ids in, token ids and log-probs out.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, with vLLM's own parameters
`return_token_ids`, `stop_token_ids`, `top_k` and `min_p`; adapters by `/v1/load_lora_adapter`,
https://docs.vllm.ai/en/latest/features/lora.html.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

from alignzoo import BadInput, RunFailed
from alignzoo.samplers import Completion, Sampling

KEY = "VLLM_API_KEY"  # the only place that a key is taken from
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may not have


class Server:
    """Asks one server, several requests at once, each again where it fails in passing."""

    def __init__(self, url: str, base: str, timeout: float, retries: int, requests: int):
        if not url.startswith(("http://", "https://")):
            raise BadInput(
                f"sampler 'vllm': {url!r} is not an address",
                hint="write --sampler vllm,url=http://localhost:8000/v1",
            )
        self.url = url.rstrip("/")
        self.base, self.timeout, self.retries, self.requests = base, timeout, retries, requests
        self.adapter: str | None = None

    def check(self) -> None:
        """`BadInput` where nobody answers, or where the base is not served."""
        try:
            served = [str(model.get("id")) for model in self.ask("models", attempts=1)["data"]]
        except RunFailed as error:
            raise BadInput(error.problem, where=error.where, hint=error.hint) from error
        if self.base not in served:
            raise BadInput(
                f"sampler 'vllm': the server does not serve {self.base!r}",
                where=self.url,
                hint=f"it serves {', '.join(served)}; name it: --sampler vllm,model=NAME",
            )

    def load(self, name: str, folder: Path) -> None:
        """Load this adapter, then let go of the one before. One of that name, of a run that was
        left, makes place for it."""
        adapter = {"lora_name": name, "lora_path": str(folder)}
        try:
            self.ask("load_lora_adapter", adapter)
        except Refused as error:
            if "already" not in error.problem:
                raise
            self.ask("unload_lora_adapter", {"lora_name": name})
            self.ask("load_lora_adapter", adapter)
        before, self.adapter = self.adapter, name
        if before is not None:
            self.ask("unload_lora_adapter", {"lora_name": before})

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        # A request each: of several completions in one, only the first would have its own seed.
        with ThreadPoolExecutor(self.requests) as pool:
            return list(pool.map(lambda *each: self.one(*each, sampling), prompts, seeds))

    def one(self, prompt: list[int], seed: int, sampling: Sampling) -> Completion:
        answer = self.ask(
            "completions",
            {
                "model": self.adapter or self.base,
                "prompt": prompt,
                "seed": seed,
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "stop": list(sampling.stop),
                "stop_token_ids": list(sampling.stop_ids),
                "logprobs": 0,  # of the sampled token alone
                "return_token_ids": True,
            },
        )
        return self.completion(answer)

    def completion(self, answer: Any) -> Completion:
        """The first choice of an answer. A log-prob that is missing is NaN."""
        try:
            (choice,) = answer["choices"]
            tokens = [int(token) for token in choice["token_ids"]]
            logprobs = choice["logprobs"]["token_logprobs"]
        except (KeyError, TypeError, ValueError):
            raise RunFailed(
                "sampler 'vllm': the server gave no token ids with their log-probs",
                where=self.url,
                hint="it must know return_token_ids: vLLM 0.10.2 or newer",
            ) from None
        if not tokens or len(tokens) != len(logprobs):
            raise RunFailed(
                f"sampler 'vllm': {len(tokens)} token ids came with {len(logprobs)} log-probs",
                where=self.url,
            )
        known = [float("nan") if logprob is None else float(logprob) for logprob in logprobs]
        return Completion(tokens, known, choice.get("finish_reason") == "stop")

    def ask(self, path: str, body: Any = None, attempts: int | None = None) -> Any:
        """POST a body, or GET without one; the JSON of the answer, or {} of one that is not."""
        attempts = self.retries + 1 if attempts is None else attempts
        for attempt in range(attempts):
            try:
                return self.once(path, body)
            except (OSError, HTTPException, json.JSONDecodeError) as error:
                reason = getattr(error, "reason", None) or error
            if attempt + 1 < attempts:
                time.sleep(min(2.0**attempt, 30.0))
        times = f"asked {attempts} times, " if attempts > 1 else ""
        raise RunFailed(
            f"sampler 'vllm': {times}no answer from {self.url}/{path}: {reason}",
            hint=f"is it there? VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {self.base} "
            "--enable-lora",
        )

    def once(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                text = response.read().decode()
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else {}
        except urllib.error.HTTPError as error:
            if error.code in PASSING:
                raise
            said = error.read().decode(errors="replace")[:500]
            raise Refused(
                f"sampler 'vllm': the server refused {path}: {error.code} {said}",
                hint=hint_for(error.code, path),
            ) from None


class Refused(RunFailed):
    """The server understood, and will not do it however often it is asked."""


def hint_for(status: int, path: str) -> str | None:
    if status in (401, 403):
        return f"put the server's key into the environment variable {KEY}"
    if "lora" in path:
        return (
            "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a "
            "--max-lora-rank of at least --lora-rank; it must see the folder of the adapter"
        )
    return None

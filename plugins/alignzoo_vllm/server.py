"""A vLLM server, by its completions API: token ids in, token ids and log-probs out.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, with vLLM's own parameters
`return_token_ids`, `stop_token_ids`, `top_k` and `min_p`. Adapters are loaded with
`/v1/load_lora_adapter`, https://docs.vllm.ai/en/latest/features/lora.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignzoo import BadInput, RunFailed
from alignzoo.errors import NotAvailable
from alignzoo.remote import JsonClient, Refused, check_url
from alignzoo.rollout import Completion, Sampling

KEY_VARIABLE = "VLLM_API_KEY"  # the only source of the API key
USER = "sampler 'vllm'"  # begins every message


class Server:
    """A vLLM server, which gets several requests at once and retries of those that fail."""

    def __init__(self, url: str, base: str, timeout: float, retries: int, requests: int):
        self.url = check_url(url, USER, "--sampler vllm,url=http://localhost:8000/v1", KEY_VARIABLE)
        self.base, self.requests = base, requests
        self.adapter: str | None = None
        client = JsonClient(self.url, USER, KEY_VARIABLE, timeout, retries, self.hint)
        self.request = client.request

    def hint(self, status: int | None, path: str) -> str | None:
        """Say what to do about an HTTP error, or about no answer (status None)."""
        if status is None:
            return (
                "is the server up? "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {self.base} --enable-lora"
            )
        if "lora" in path:
            return (
                "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a "
                "--max-lora-rank of at least --lora-rank; it must see the adapter's folder"
            )
        return None

    def check(self) -> None:
        """Raise `NotAvailable` if the server does not answer, `BadInput` if it has another base."""
        try:
            reply = self.request("models", attempts=1)
            served = [str(model.get("id")) for model in reply["data"]]
        except RunFailed as error:
            raise NotAvailable(error.problem, where=error.where, hint=error.hint) from error
        if self.base not in served:
            raise BadInput(
                f"{USER}: the server does not serve {self.base!r}",
                where=self.url,
                hint=f"it serves {', '.join(served)}; name it: --sampler vllm,model=NAME",
            )

    def load(self, name: str, folder: Path) -> None:
        """Load this adapter, then unload the previous one.

        An adapter of the same name, left by an interrupted run, is replaced.
        """
        adapter = {"lora_name": name, "lora_path": str(folder)}
        try:
            self.request("load_lora_adapter", adapter)
        except Refused as error:
            if "already" not in error.problem:
                raise
            self.request("unload_lora_adapter", {"lora_name": name})
            self.request("load_lora_adapter", adapter)
        previous, self.adapter = self.adapter, name
        if previous is not None:
            self.request("unload_lora_adapter", {"lora_name": previous})

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Draw one completion per prompt and seed, several requests at once."""
        # One completion per request: with n > 1 only the first would have its own seed.
        with ThreadPoolExecutor(self.requests) as pool:
            return list(pool.map(self.complete, prompts, seeds, [sampling] * len(prompts)))

    def complete(self, prompt: list[int], seed: int, sampling: Sampling) -> Completion:
        """Draw one completion."""
        reply = self.request(
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
                "logprobs": 0,  # of the sampled token only
                "return_token_ids": True,
            },
        )
        return self.parse_completion(reply)

    def parse_completion(self, reply: Any) -> Completion:
        """Return the only choice of a reply; a missing log-prob becomes NaN."""
        try:
            (choice,) = reply["choices"]
            tokens = [int(token) for token in choice["token_ids"]]
            logprobs = choice["logprobs"]["token_logprobs"]
        except (KeyError, TypeError, ValueError):
            raise RunFailed(
                f"{USER}: the server returned no token ids with their log-probs",
                where=self.url,
                hint="it must support return_token_ids: vLLM 0.10.2 or newer",
            ) from None
        if not tokens or len(tokens) != len(logprobs):
            raise RunFailed(
                f"{USER}: {len(tokens)} token ids came with {len(logprobs)} log-probs",
                where=self.url,
            )
        known = [float("nan") if logprob is None else float(logprob) for logprob in logprobs]
        return Completion(tokens, known, choice.get("finish_reason") == "stop")

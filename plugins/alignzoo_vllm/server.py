"""A vLLM server, by its completions interface: token ids in, token ids and log-probs out.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, with vLLM's own parameters
`return_token_ids`, `stop_token_ids`, `top_k` and `min_p`; adapters by `/v1/load_lora_adapter`,
https://docs.vllm.ai/en/latest/features/lora.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignzoo import BadInput, RunFailed
from alignzoo.remote import Refused, Remote, address
from alignzoo.rollout import Completion, Sampling

KEY = "VLLM_API_KEY"  # the only place that a key is taken from
WHO = "sampler 'vllm'"


class Server:
    """Asks one server, several requests at once, each again where it fails in passing."""

    def __init__(self, url: str, base: str, timeout: float, retries: int, requests: int):
        self.url = address(url, WHO, "--sampler vllm,url=http://localhost:8000/v1")
        hint = f"is it there? VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {base} --enable-lora"
        self.remote = Remote(self.url, WHO, KEY, timeout, retries, hint, hint_for)
        self.ask = self.remote.ask
        self.base, self.requests = base, requests
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


def hint_for(status: int, path: str) -> str | None:
    if "lora" in path:
        return (
            "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a "
            "--max-lora-rank of at least --lora-rank; it must see the folder of the adapter"
        )
    return None

"""A vLLM server, by its completions API: token ids in, token ids and log-probs out.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, with vLLM's own parameters
`return_token_ids`, `stop_token_ids`, `top_k` and `min_p`. Adapters are loaded with
`/v1/load_lora_adapter`, https://docs.vllm.ai/en/latest/features/lora.html; whole models with
`reload_weights` by `/collective_rpc`, https://docs.vllm.ai/en/latest/training/layerwise/, an
endpoint of the development mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignzoo import BadInput, RunFailed
from alignzoo.errors import NotAvailable
from alignzoo.remote import JsonClient, NoAnswer, Refused, check_url
from alignzoo.rollout import Completion, Sampling

KEY_VARIABLE = "VLLM_API_KEY"  # the only source of the API key
USER = "sampler 'vllm'"  # begins every message
DEV_MODE = "VLLM_SERVER_DEV_MODE=1"  # has the endpoint that loads whole models
PROBE = 5.0  # seconds that a lost server has to show that it is up


class Server:
    """A vLLM server. Requests that fail are retried.

    With `whole_models`, it is given whole models in place of adapters.
    """

    def __init__(self, url: str, base: str, timeout: float, retries: int, whole_models: bool):
        self.url = check_url(url, USER, "--sampler vllm,url=http://localhost:8000/v1", KEY_VARIABLE)
        self.base, self.whole_models = base, whole_models
        self.adapter: str | None = None
        self.request = self.client(self.url, timeout, retries).request
        # The endpoints of the development mode are not below /v1.
        self.request_root = self.client(self.url.removesuffix("/v1"), timeout, retries).request
        self.probe = self.client(self.url, min(timeout, PROBE), 0).request

    def client(self, url: str, timeout: float, retries: int) -> JsonClient:
        """Return a client for this URL."""
        return JsonClient(url, USER, KEY_VARIABLE, timeout, retries, self.hint)

    def hint(self, status: int | None, path: str) -> str | None:
        """Say what to do about an HTTP error, or about no answer (status None)."""
        if path in ("collective_rpc", "reset_prefix_cache"):
            return (
                f"start it with {DEV_MODE}; it must see the folder of the weights, and have a "
                "reload_weights that takes weights_path: vLLM 0.18 does"
            )
        if status is None:
            serve = f"vllm serve {self.base}"
            if self.whole_models:
                return f"is the server up? {DEV_MODE} {serve}"
            return f"is the server up? VLLM_ALLOW_RUNTIME_LORA_UPDATING=True {serve} --enable-lora"
        if "lora" in path:
            return (
                "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a "
                "--max-lora-rank of at least --lora-rank; it must see the adapter's folder"
            )
        return None

    def answers(self) -> bool:
        """Return whether the server is up, after one quick request."""
        try:
            self.probe("models")
        except RunFailed:
            return False
        return True

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
        """Draw from the weights in this folder from now on: an adapter's, or a whole model's."""
        if self.whole_models:
            arguments = {"weights_path": str(folder)}
            self.request_root("collective_rpc", {"method": "reload_weights", "kwargs": arguments})
            self.request_root("reset_prefix_cache", {})  # it was computed with other weights
        else:
            self.load_adapter(name, folder)

    def load_adapter(self, name: str, folder: Path) -> None:
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
            try:
                self.request("unload_lora_adapter", {"lora_name": previous})
            except Refused as error:
                if error.status != 404:  # a server that was restarted does not have it
                    raise

    def adopt(self, name: str) -> None:
        """Draw from the weights that another process has had loaded under this name."""
        if not self.whole_models:
            self.adapter = name

    def complete(self, prompt: list[int], seed: int, sampling: Sampling) -> Completion:
        """Draw one completion. Raise `NoAnswer` if the server has lost the adapter."""
        model = self.adapter or self.base
        body = {
            "model": model,
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
        }
        try:
            return self.parse_completion(self.request("completions", body))
        except Refused as error:
            if error.status != 404:
                raise
            raise NoAnswer(
                f"{USER}: {self.url} does not have {model!r} any more, as after a restart",
                hint="the run, when it is resumed, loads its weights again",
            ) from error

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

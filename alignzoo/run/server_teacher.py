"""A teacher on a server: log-probs of tokens that it is sent, by vLLM's completions API.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: token ids are sent as the
prompt, and its parameter `prompt_logprobs` asks for the log-prob of each of them and of the K
likeliest tokens there. They are log-probs at temperature 1, whatever the request says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.options import build, split_options
from alignzoo.policy import Outputs
from alignzoo.remote import ClientOptions, JsonClient, Refused, check_url, find_model, refuse_keys

KEY_VARIABLE = "ALIGNZOO_TEACHER_KEY"  # the only source of the API key
USER = "the teacher's server"  # begins every message
EXAMPLE = "--teacher http://localhost:8000/v1,model=NAME"
PROBED = 64  # tokens whose texts are compared before training
IMPOSSIBLE = -9999.0  # the log-prob that vLLM writes for a probability of 0
REPLACED = "\ufffd"  # stands for bytes that are no text on their own
Entry = Mapping[str, Mapping[str, Any]]  # what a server says about a position, by token id


@dataclass
class TeacherOptions(ClientOptions):
    """The options after the URL of a teacher's server."""

    timeout: Annotated[float, "seconds to wait for a server's reply", Gt(0)] = 600.0
    price: Annotated[float, "price of a million tokens", Ge(0)] = 0.0


class RunCharge(Protocol):
    """Charges a purpose of the ledger, as `Run.charge` does."""

    def __call__(self, purpose: str, **amounts: float) -> None:
        """Charge amounts: `tokens`, `money`."""


def parse_server(text: str) -> tuple[str, TeacherOptions]:
    """Return URL and options of `URL[,OPTION=VALUE...]`; raise `BadInput` for a wrong one."""
    name, options = split_options(text, "--teacher")
    url = check_url(name, USER, EXAMPLE, KEY_VARIABLE)
    refuse_keys(options, USER, KEY_VARIABLE)
    return url, build(TeacherOptions, options, f"teacher {url}")


class ServerTeacher:
    """A model on a server as the teacher of a run, which sends it prompts and completions as ids.

    `charge` charges what a request has cost: tokens, and money if the server has a price. FLOPs are
    not known. Raise `BadInput` if the server does not answer, or has several models and none is
    named.
    """

    def __init__(self, text: str, charge: RunCharge):
        url, self.options = parse_server(text)
        self.client = JsonClient(
            url, USER, KEY_VARIABLE, self.options.timeout, self.options.retries, hint_for
        )
        self.model = find_model(self.client, self.options.model)
        self.charge = charge

    def outputs(self, batch: Batch, *, top_k: int = 0, temperature: float = 1.0) -> Outputs:
        """Return the log-probs `[N, T]`, and with `top_k` those of the likeliest tokens.

        Raise `RunFailed` if the server does not answer, or answers something else, `BadInput` if it
        refuses the request.
        """
        if temperature != 1.0:
            raise BadInput(f"{USER} has log-probs at temperature 1 only, not {temperature}")
        prompts = [
            ids[:length].tolist()
            for ids, length in zip(batch.prompts, batch.prompt_lengths.tolist(), strict=True)
        ]
        groups = batch.group.tolist()
        completions = batch.completions()
        sequences = [prompts[b] + ids for b, ids in zip(groups, completions, strict=True)]
        with ThreadPoolExecutor(self.options.requests) as pool:
            replies = list(pool.map(lambda ids: self.request(ids, top_k), sequences))
        tokens = sum(map(len, sequences))
        self.charge("teacher", tokens=tokens, money=tokens * self.options.price / 1e6)
        shape = batch.tokens.shape  # N, T
        logprobs = torch.zeros(shape)
        top_logprobs, top_ids = torch.zeros(*shape, top_k), torch.zeros(*shape, top_k).long()
        for n, (reply, ids) in enumerate(zip(replies, completions, strict=True)):
            for t, (entry, token) in enumerate(zip(reply[-len(ids) :], ids, strict=True)):
                logprobs[n, t] = read_logprob(entry, token)
                if top_k:
                    top_ids[n, t], top_logprobs[n, t] = read_likeliest(entry, top_k)
        device = batch.tokens.device
        tops = {"top_logprobs": top_logprobs.to(device), "top_ids": top_ids.to(device)}
        return Outputs(logprobs.to(device), **(tops if top_k else {}))

    def request(self, tokens: Sequence[int], top_k: int) -> list[Entry]:
        """Return what the server says about each token but the first, given those before it.

        Raise `BadInput` if it refuses to, `RunFailed` if it does not answer.
        """
        body = {
            "model": self.model,
            "prompt": list(tokens),
            "max_tokens": 1,  # a server has to write one
            "prompt_logprobs": max(top_k, 1),
        }
        try:
            reply = self.client.request("completions", body)
        except Refused as error:
            raise BadInput(error.problem, where=self.client.url, hint=error.hint) from error
        try:
            entries = reply["choices"][0]["prompt_logprobs"][1:]
        except (KeyError, TypeError, IndexError):
            entries = []
        if len(entries) != len(tokens) - 1 or not all(isinstance(x, Mapping) for x in entries):
            raise malformed("no log-probs of the tokens of a prompt")
        return entries

    def check_vocabulary(self, tokenizer: Any, model: str) -> bool:
        """Raise `BadInput` with an example if token ids do not mean there what they mean here.

        Tokens all over the vocabulary of the model are compared by their texts. Return False if the
        server does not say them.
        """
        ids = sorted(tokenizer.get_vocab().values())
        probed = ids[:: max(1, len(ids) // PROBED)] + ids[-1:]
        try:
            entries = self.request(probed, 1)
        except RunFailed as error:
            raise BadInput(error.problem, hint=error.hint) from error
        compared = 0
        for token, entry in zip(probed[1:], entries, strict=True):
            read_logprob(entry, token)
            for known, said in entry.items():
                theirs = said.get("decoded_token")
                ours = tokenizer.decode([int(known)])
                if theirs is None or REPLACED in theirs + ours:
                    continue
                compared += 1
                if theirs.strip() != ours.strip():
                    raise BadInput(
                        f"the vocabulary of {USER} is not that of {model}: token {known} is "
                        f"{theirs!r} in the one, {ours!r} in the other",
                        hint="use a model with the same tokenizer",
                    )
        return compared > 0


def read_logprob(entry: Entry, token: int) -> float:
    """Return the log-prob of a token at its position, in nats."""
    try:
        found = float(entry[str(token)]["logprob"])
    except (KeyError, TypeError, ValueError):
        raise malformed(f"no log-prob of token {token}") from None
    if math.isnan(found) or found > 1e-3:
        raise malformed(f"{found} as the log-prob of token {token}")
    return min(max(found, IMPOSSIBLE), 0.0)


def read_likeliest(entry: Entry, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the ids and log-probs of the K likeliest tokens at a position, `[K]` each."""
    found = sorted(((read_logprob(entry, int(token)), int(token)) for token in entry), reverse=True)
    if len(found) < top_k:
        raise malformed(f"{len(found)} tokens at a position, not {top_k}")
    logprobs, ids = zip(*found[:top_k], strict=True)
    return torch.tensor(ids), torch.tensor(logprobs)


def malformed(what: str) -> RunFailed:
    """Return the error for a reply that has something else than was asked for."""
    return RunFailed(
        f"{USER} returned {what}",
        hint="it has to support prompt_logprobs for prompts of token ids, as vLLM does",
    )


def hint_for(status: int | None, path: str) -> str | None:
    """Say what to do about no answer (status None), or about one that was refused."""
    if status in (None, 404):
        return "is the server up, does the URL end in /v1, and does it have this model?"
    if status == 400:
        return (
            "does it have the vocabulary of the run, and allow so many log-probs and such long "
            "prompts? vllm serve MODEL --max-logprobs K --max-model-len N"
        )
    return None

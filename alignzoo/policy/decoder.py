"""Decode rows one token at a time: with a cache where that is right for a model, else without.

`pick_decoder` tries each way on a few tokens, as `alignzoo.policy.probe` does for scoring.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, one_line
from alignzoo.policy.model import LanguageModel
from alignzoo.policy.probe import allowed_error, decoding_batch, defined_logprobs

SPARE_LENGTH = 64  # tokens by which buffers grow


Another = Callable[[], AbstractContextManager[None]]


class Decoder(Protocol):
    """Incremental decoding of N rows by a model, or by the one inside `as_another()`.

    `passes` counts the forward passes of the model so far.
    """

    passes: int

    def __init__(
        self,
        policy: LanguageModel,
        prompts: Sequence[Sequence[int]],
        as_another: Another = nullcontext,
    ): ...

    def logits(self) -> Tensor:
        """Return the logits of the next token of each row, `[N, V]`."""
        ...

    def append(self, drawn: Tensor) -> None:
        """Append a token to each row, `[N]`."""
        ...

    def select(self, rows: list[int]) -> None:
        """Replace the rows by the ones with these indices, in this order; one may be repeated."""
        ...


class CachedDecoder:
    """Incremental decoding of N rows by the policy, or by the model inside `as_another()`.

    `tokens [N, L]` are those that are not in the cache yet: the left-padded prompts at first, then
    one token per row. `attention [N, S]` is 1 for the tokens of all S positions, 0 for padding.
    """

    def __init__(
        self,
        policy: LanguageModel,
        prompts: Sequence[Sequence[int]],
        as_another: Another = nullcontext,
    ):
        self.policy, self.as_another, self.passes = policy, as_another, 0
        with as_another():
            self.model, virtual = policy.network, policy.virtual
            tokens, attention = _padded([[0] * virtual.placeholders + list(p) for p in prompts])
            self.cache: Any = growing_cache(self.model.config)
            virtual.fill(self.cache, len(prompts))
            ahead = virtual.count - virtual.placeholders
        self.tokens, attention = tokens.to(policy.device), attention.to(policy.device)
        self.attention = torch.cat([attention.new_ones(len(prompts), ahead), attention], 1)
        self.recurrent = _recurrent(self.model)

    def logits(self) -> Tensor:
        """Run the model on the new tokens, and return the logits of the next one, `[N, V]`."""
        self.passes += 1
        new = self.tokens.shape[1]  # L
        positions = (self.attention.cumsum(1) - 1).clamp(min=0)[:, -new:]  # (N, L)
        memory = {
            "past_key_values": self.cache,
            "attention_mask": self.attention,
            "position_ids": positions,
        }
        if self.recurrent:
            memory = {"cache_params": self.cache, "attention_mask": self.attention[:, -new:]}
        # The precision of training, for the same log-probs.
        with self.as_another(), self.policy.autocast(), self.policy.virtual.inject(positions):
            output = self.model(input_ids=self.tokens, use_cache=True, logits_to_keep=1, **memory)
        return output.logits[:, -1].float()  # (N, 1, V) -> (N, V)

    def append(self, drawn: Tensor) -> None:
        """Append a token to each row, `[N]`."""
        self.tokens = drawn[:, None]  # (N, 1)
        self.attention = torch.cat([self.attention, self.attention.new_ones(len(drawn), 1)], 1)

    def select(self, rows: list[int]) -> None:
        """Replace the rows by the ones with these indices, in this order; one may be repeated."""
        self.cache.reorder_cache(torch.tensor(rows, device=self.policy.device))
        self.tokens, self.attention = self.tokens[rows], self.attention[rows]


class SeparateDecoder:
    """A `CachedDecoder` for each row: for caches that do not take rows of unlike length."""

    def __init__(
        self,
        policy: LanguageModel,
        prompts: Sequence[Sequence[int]],
        as_another: Another = nullcontext,
    ):
        self.rows = [CachedDecoder(policy, [prompt], as_another) for prompt in prompts]
        self.passes = 0

    def logits(self) -> Tensor:
        """Return the logits of the next token of each row, `[N, V]`."""
        self.passes += len(self.rows)
        return torch.cat([row.logits() for row in self.rows])

    def append(self, drawn: Tensor) -> None:
        """Append a token to each row, `[N]`."""
        for row, token in zip(self.rows, drawn.split(1), strict=True):
            row.append(token)

    def select(self, rows: list[int]) -> None:
        """Replace the rows by the ones with these indices, in this order; one may be repeated."""
        chosen: list[CachedDecoder] = []
        for n, index in enumerate(rows):
            row = copy.copy(self.rows[index])
            if index in rows[:n]:
                row.cache = copy.deepcopy(row.cache)
            chosen.append(row)
        self.rows = chosen


class PlainDecoder:
    """Each row by itself and without a cache: what the model says by definition, and slow."""

    def __init__(
        self,
        policy: LanguageModel,
        prompts: Sequence[Sequence[int]],
        as_another: Another = nullcontext,
    ):
        self.policy, self.as_another, self.passes = policy, as_another, 0
        self.rows = [torch.tensor(list(p), device=policy.device) for p in prompts]  # (l,) each
        self.options: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in _arguments(policy.model):
            self.options["logits_to_keep"] = 1

    def logits(self) -> Tensor:
        """Return the logits of the next token of each row, `[N, V]`."""
        self.passes += len(self.rows)
        with self.as_another(), self.policy.autocast():
            found = [
                self.policy.model(input_ids=row[None], **self.options).logits[:, -1]
                for row in self.rows
            ]
        return torch.cat(found).float()

    def append(self, drawn: Tensor) -> None:
        """Append a token to each row, `[N]`."""
        self.rows = [
            torch.cat([row, token]) for row, token in zip(self.rows, drawn.split(1), strict=True)
        ]

    def select(self, rows: list[int]) -> None:
        """Replace the rows by the ones with these indices, in this order; one may be repeated."""
        self.rows = [self.rows[index] for index in rows]


NOTES: dict[type[Decoder], str | None] = {
    CachedDecoder: None,
    SeparateDecoder: "completions are generated one at a time: this model's cache does not take "
    "rows of unlike length",
    PlainDecoder: "completions are generated one at a time without a cache, which is slow: this "
    "model's own gives other tokens",
}


def make_decoder(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    longest: int,
    as_another: Another = nullcontext,
) -> Decoder:
    """Return a decoder that is right for the model and rows of up to `longest` tokens."""
    limit = policy.rotary_limit
    if limit is not None and longest + policy.virtual.count > limit:
        return PlainDecoder(policy, prompts, as_another)
    kind: type[Decoder] = policy.decoder or CachedDecoder
    if kind is CachedDecoder and policy.positions is not None and longest > policy.positions:
        # Padding must not take positions, as it does in MPT, whose biases are of columns.
        kind = SeparateDecoder
    return kind(policy, prompts, as_another)


def check_gradient(policy: LanguageModel) -> None:
    """Raise BadInput if the backward pass fails, as it does where a model works in place."""
    if not policy.parameters():
        return
    training = policy.model.training
    policy.train()
    try:
        with torch.enable_grad(), torch.random.fork_rng():  # dropout draws
            batch = decoding_batch(policy.model)
            logprobs = policy(batch).logprobs
            with torch.no_grad(), policy.evaluating():  # a reference is computed in between
                policy(batch)
            logprobs.sum().backward()
    except (BadInput, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # an unknown model may fail in any way
        raise BadInput(
            f"a {policy.model.config.model_type} model gives no gradient: {one_line(error)}",
            where=policy.name,
            hint="it can be evaluated, but not trained",
        ) from error
    finally:
        policy.train(training)
        for parameter in policy.parameters():
            parameter.grad = None


@torch.no_grad()
def pick_decoder(policy: LanguageModel) -> type[Decoder]:
    """Return the first way of decoding that gives the model's own log-probs, in evaluation mode."""
    batch = decoding_batch(policy.model)
    with policy.autocast():
        expected = defined_logprobs(policy.model, batch)
        changed = defined_logprobs(policy.model, decoding_batch(policy.model, shift=1))
        allowed = allowed_error(policy.model, changed, expected)
    kinds: tuple[type[Decoder], ...] = (CachedDecoder, SeparateDecoder)
    for kind in kinds:
        try:
            got = _decode(kind(policy, _prompts(batch)), batch)
        except (BadInput, torch.cuda.OutOfMemoryError):
            raise
        except Exception:  # an unknown model may fail in any way
            continue
        if bool((got - expected).abs().mean() <= allowed):
            return kind
    return PlainDecoder


def _decode(decoder: Decoder, batch: Batch) -> Tensor:
    """Return log-probs `[N, T]` of the completions, fed to a decoder token by token."""
    logprobs = torch.zeros(batch.tokens.shape, device=batch.tokens.device)
    alive = list(range(len(batch.tokens)))
    for t in range(batch.tokens.shape[1]):
        logits = decoder.logits()
        if t == 0:  # from prompts to completions
            spread = batch.group.tolist()
            logits = logits[spread]
            decoder.select(spread)
        tokens = batch.tokens[alive, t]  # (n,)
        logprobs[alive, t] = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
        going = [k for k, n in enumerate(alive) if t + 1 < batch.lengths[n]]
        if not going:
            break
        decoder.append(tokens)
        if len(going) < len(alive):
            decoder.select(going)
            alive = [alive[k] for k in going]
    return logprobs


def _prompts(batch: Batch) -> list[list[int]]:
    lengths = batch.prompt_lengths.tolist()
    return [ids[:length] for ids, length in zip(batch.prompts.tolist(), lengths, strict=True)]


def _arguments(model: Any) -> Collection[str]:
    """Return the names of the arguments of a model's forward pass, without its adapter."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(base.forward).parameters


def _recurrent(model: Any) -> bool:
    """Return whether a model calls its cache `cache_params`, without positions, as Mamba does."""
    return "past_key_values" not in _arguments(model)


def _padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return left-padded ids `[N, W]`, and a mask `[N, W]` with 0 for padding."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return tokens, attention


class GrowingLayer(DynamicLayer):
    """A cache layer whose buffers grow by `SPARE_LENGTH` tokens at a time.

    `keys` and `values`, `[N, heads, S, d]`, are views of the filled part, so that most steps copy
    only the new token.
    """

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append states `[N, heads, L, d]`, and return all keys and values `[N, heads, S, d]`."""
        done, more = self.get_seq_length(), key_states.shape[-2]
        if done == 0:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        if self._buffers is None or done + more > self._buffers[0].shape[-2]:
            self._buffers = grow(self.keys, done + more), grow(self.values, done + more)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., done : done + more, :] = states
        self.keys, self.values = (buffer[..., : done + more, :] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        """Select rows by index; the next update allocates new buffers."""
        super().reorder_cache(beam_idx)
        self._buffers = None

    def batch_select_indices(self, indices: Any) -> None:
        """Select rows by index."""
        self.reorder_cache(indices)


def grow(states: Any, length: int) -> Tensor:
    """Copy states `[..., l, d]` to the start of a buffer `[..., length + SPARE_LENGTH, d]`."""
    buffer = states.new_empty(*states.shape[:-2], length + SPARE_LENGTH, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer


def growing_cache(config: Any) -> DynamicCache:
    """Return the cache for a model of this config, with growing buffers in its plain layers."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache

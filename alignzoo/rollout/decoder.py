"""A model with a key-value cache, which decodes a batch of rows one token at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignzoo.policy import Policy

SPARE_LENGTH = 64  # tokens by which buffers grow


class Decoder:
    """Incremental decoding of N rows by the policy, or by the model inside `as_another()`.

    `tokens [N, L]` are those that are not in the cache yet: the left-padded prompts at first, then
    one token per row. `attention [N, S]` is 1 for the tokens of all S positions, 0 for padding.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        as_another: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self.policy, self.as_another = policy, as_another
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


def _recurrent(model: Any) -> bool:
    """Return whether a model calls its cache `cache_params`, without positions, as Mamba does."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "past_key_values" not in inspect.signature(base.forward).parameters


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

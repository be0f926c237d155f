"""A model that reads rows of tokens as they grow, and says what may come next."""

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


class Decoder:
    """The policy, or another inside `as_another()`, with what it has read of each row in a cache.

    `tokens [N, L]` are what it has been told and not read yet.
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
        """Of the next token, `[N, V]`, after reading what it has been told."""
        new = self.tokens.shape[1]
        positions = (self.attention.cumsum(1) - 1).clamp(min=0)[:, -new:]
        memory = {
            "past_key_values": self.cache,
            "attention_mask": self.attention,
            "position_ids": positions,
        }
        if self.recurrent:
            memory = {"cache_params": self.cache, "attention_mask": self.attention[:, -new:]}
        # As in training, so that the log-probs are the same.
        with self.as_another(), self.policy.autocast(), self.policy.virtual.inject(positions):
            output = self.model(input_ids=self.tokens, use_cache=True, logits_to_keep=1, **memory)
        return output.logits[:, -1].float()

    def append(self, drawn: Tensor) -> None:
        """The next token of each row, `[N]`."""
        self.tokens = drawn[:, None]
        self.attention = torch.cat([self.attention, self.attention.new_ones(len(drawn), 1)], 1)

    def select(self, rows: list[int]) -> None:
        """These rows in this order; one may be there several times."""
        self.cache.reorder_cache(torch.tensor(rows, device=self.policy.device))
        self.tokens, self.attention = self.tokens[rows], self.attention[rows]


def _recurrent(model: Any) -> bool:
    """Whether a model has another name for its cache: no places, and a mask of new tokens alone."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "past_key_values" not in inspect.signature(base.forward).parameters


def _padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Left-padded ids `[N, W]`, and 1 where there is one."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return tokens, attention


SPARE_LENGTH = 64  # tokens; a copy of everything each so many


class GrowingLayer(DynamicLayer):
    """`keys` and `values` are the filled part of buffers that are longer than they are."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
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
        super().reorder_cache(beam_idx)
        self._buffers = None

    def batch_select_indices(self, indices: Any) -> None:
        self.reorder_cache(indices)


def grow(states: Any, length: int) -> Tensor:
    """A longer buffer `[..., length + SPARE_LENGTH, d]` that begins with these `[..., l, d]`."""
    buffer = states.new_empty(*states.shape[:-2], length + SPARE_LENGTH, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer


def growing_cache(config: Any) -> DynamicCache:
    """The cache that a model of this config asks for, its plain layers with room."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache

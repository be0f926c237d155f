"""Attention over the sequences of a packed row by their exact lengths, without any padding.

A completion over [prompt; itself] is causal attention whose ends are aligned. On a GPU torch's
varlen kernel (FlashAttention) computes that for all sequences of a row in one call: no mask is
made, and no score outside it is computed. On a CPU there is a call per sequence, which pays unless
sequences are short.

Measured on one core, 9 heads of 64 (3 of keys), 1,000 tokens, forward and backward: 4 pairs of 30
to 90 tokens after prompts of 100 to 160, this 20 ms, padded blocks 34 ms; 2 groups of 8 after 128,
19 and 35 ms. 4 heads of 32, 22 groups of 8 completions of 4 tokens after 15: 11.6 and 3.6 ms.

Sizes in shapes: those of `alignzoo.policy.layout`, S sequences (the prompts of the row, then its
completions), K keys of all sequences together, H attention heads of size d, of which keys and
values may have fewer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from alignzoo.policy.layout import Block, Layout

CALL_COST = 100_000  # of a sequence on a CPU, in products of a query's with a key's number
# Earlier versions of torch take as many heads of keys as of queries.
FEWER_KEY_HEADS = "enable_gqa" in inspect.signature(varlen_attn).parameters


# From `[S, length, H, d]` of queries, keys and values, and a mask, to `[S, length, H, d]`.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Sequences:
    """The sequences of a packed row.

    `query_ends` and `key_ends [S + 1]` are where sequences end, after a 0; the queries of a
    sequence are the last of its tokens. `keys [K]` is the place in the row of each key, None if the
    keys are the row itself.
    """

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int
    keys: Tensor | None

    @cached_property
    def query_lengths(self) -> list[int]:
        """The number of queries of each sequence."""
        return self.query_ends.diff().tolist()

    @cached_property
    def key_lengths(self) -> list[int]:
        """The number of keys of each sequence."""
        return self.key_ends.diff().tolist()

    def saves_time(self, layout: Layout, width: int) -> bool:
        """Return whether a call per sequence costs less than padded blocks do.

        `width` is the size of all heads of queries together.
        """
        queries, keys = self.query_ends.diff().double(), self.key_ends.diff().double()  # (S,)
        pairs = float((queries * (keys - queries / 2)).sum())
        rows, longest = layout.prompts.shape
        padded = rows * longest**2 / 2
        if layout.completions is not None:
            rows, own = layout.completions.shape
            padded += rows * own * (longest + own)
        return (padded - pairs) * width > CALL_COST * len(queries)

    @classmethod
    def of(cls, layout: Layout) -> Sequences:
        """Find the sequences of a row."""
        device = layout.ids.device
        lengths = block_lengths(layout.prompts, device)  # (B,)
        if layout.completions is None:
            ends, longest = _ends(lengths), layout.prompts.shape[1]
            return cls(ends, ends, longest, longest, None)
        own = block_lengths(layout.completions, device)  # (M,)
        before = torch.cat([torch.zeros_like(lengths), layout.prompt_lengths])  # (S,)
        parent = torch.cat([torch.arange(len(lengths), device=device), layout.parent])  # (S,)
        lengths = torch.cat([lengths, own])  # (S,)
        starts = lengths.cumsum(0) - lengths  # (S,)
        all_keys = before + lengths  # (S,)
        sequence = torch.arange(len(lengths), device=device).repeat_interleave(all_keys)  # (K,)
        key_ends = _ends(all_keys)
        place = torch.arange(len(sequence), device=device) - key_ends[sequence]  # (K,)
        beyond = place - before[sequence]  # (K,) place among the sequence's own tokens
        keys = torch.where(beyond < 0, starts[parent][sequence] + place, starts[sequence] + beyond)
        longest_query = max(layout.prompts.shape[1], layout.completions.shape[1])
        return cls(_ends(lengths), key_ends, longest_query, int(all_keys.max()), keys)


@dataclass(frozen=True)
class SequenceMask:
    """Causal attention within each sequence, to the last `window` tokens, itself included."""

    sequences: Sequences
    window: int

    @cached_property
    def each(self) -> list[Tensor | None]:
        """The mask `[1, 1, queries, keys]` of each sequence, None where it is plain causal."""
        lengths = zip(self.sequences.query_lengths, self.sequences.key_lengths, strict=True)
        return [self._mask(queries, keys) for queries, keys in lengths]

    def _mask(self, queries: int, keys: int) -> Tensor | None:
        if queries == keys <= self.window:
            return None
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        return seen.triu(keys - queries - self.window + 1)[None, None]


def block_lengths(block: Block, device: torch.device) -> Tensor:
    """Return the number of tokens of each sequence of a block, `[S]`."""
    if block.real is None:
        return torch.full((block.shape[0],), block.shape[1], device=device)
    return torch.bincount(block.real // block.shape[1], minlength=block.shape[0])


def _ends(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()


def causal_window(
    mask_function: Callable[..., Tensor], local_size: int | None, positions: Tensor
) -> int | None:
    """Return how many tokens, itself included, each sees; None unless they are the last ones.

    `mask_function(batch, head, query, key)` is that of `packed_mask`, `positions [W]` all positions
    in order. It is called for the first, the last, and those at the window's edge.
    """
    width = len(positions)
    window = width if local_size is None else min(local_size, width)
    edges = {0, 1, window - 1, window, window + 1, 2 * window, width - 1}
    queries = positions[sorted(q for q in edges if 0 <= q < width)][:, None]  # (at most 7, 1)
    expected = (positions <= queries) & (positions > queries - window)  # (at most 7, W)
    found = mask_function(0, 0, queries, positions)
    return window if torch.equal(found.expand_as(expected), expected) else None


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: SequenceMask, scale: float | None
) -> Tensor:
    """Attend by torch's kernel: `query [L, H, d]`, `key` and `value [K, H, d]`, to `[L, H, d]`.

    In half precision on a GPU only; NotImplementedError elsewhere.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):
        half = torch.get_autocast_dtype(device)
        query, key, value = query.to(half), key.to(half), value.to(half)
    if device != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        raise NotImplementedError("the kernel takes half precision on a GPU")
    more: dict[str, Any] = {"enable_gqa": key.shape[1] != query.shape[1]}
    if not FEWER_KEY_HEADS:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        more = {}
    sequences, window = mask.sequences, mask.window
    return varlen_attn(  # type: ignore[return-value] # a tuple only if more is asked for
        query,
        key,
        value,
        sequences.query_ends,
        sequences.key_ends,
        sequences.longest_query,
        sequences.longest_key,
        scale=scale,
        window_size=(-1 if window >= sequences.longest_key else window - 1, 0),
        **more,
    )


def attend_one_by_one(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, mask: SequenceMask
) -> Tensor:
    """Attend by a call per sequence: `query [L, H, d]`, `key`, `value [K, H, d]`, to `[L, H, d]`.

    `attend(query, key, value, mask)` takes `[1, length, H, d]` and a mask `[1, 1, queries, keys]`,
    None for a causal one.
    """
    queries = query.split(mask.sequences.query_lengths)
    keys, values = (x.split(mask.sequences.key_lengths) for x in (key, value))
    parts = zip(queries, keys, values, mask.each, strict=True)
    return torch.cat([attend(q[None], k[None], v[None], m)[0] for q, k, v, m in parts if len(q)])

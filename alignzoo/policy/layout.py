"""Lay a batch out for the model: every token once, no padding, in a single row.

    [ prompt 1 | prompt 2 | ... | completion 1 | completion 2 | ... ]

The row begins with the block of *prompts*, one sequence per group, followed by the block of
*completions*, each of which attends to the prompt of its group and to itself. A group of one
completion needs no such split: its prompt and completion are one sequence of the first block,
which is plain causal attention. The last token of a completion predicts nothing, so it is left
out, unless its own hidden state is wanted (`HiddenState.OF_TOKEN`, for a score head).

Linear layers see `[1, L]` tokens without padding; only attention unpacks them, to `[B, W]` prompts
and `[M, C]` completions (`alignzoo.policy.attention`).

Sizes in shapes: B groups, N completions of at most T tokens, n tokens in all completions together,
L tokens in the packed row, W the longest sequence of the first block, M completions of the second
block, of at most C tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from alignzoo.batch import Batch


class HiddenState(Enum):
    """Which hidden state stands for a token of a completion."""

    PREDICTING = "of the token before, which predicts it"
    OF_TOKEN = "of the token itself, which has seen it"


class Work(NamedTuple):
    """The size of one forward pass: tokens, pairs (query, key) that attend, scored tokens."""

    tokens: int
    attended: float
    scored: int


@dataclass(frozen=True)
class Block:
    """Sequences of unequal length inside the packed row, as a padded matrix `[S, W]` and back.

    `cells [S*W]` is the index of each cell in the block's part of the row (padding points at its
    first token), `real` the cells that are tokens; both are None when nothing is padded.
    """

    shape: tuple[int, int]
    cells: Tensor | None
    real: Tensor | None

    @classmethod
    def of(cls, mask: Tensor) -> Block:
        """Make a block from `mask [S, W]`, True where there is a token."""
        shape = (mask.shape[0], mask.shape[1])
        flat = mask.flatten()  # (S*W,)
        real = flat.nonzero().squeeze(1)  # (tokens,)
        if real.numel() == flat.numel():
            return cls(shape, None, None)
        return cls(shape, (flat.cumsum(0) - 1).clamp_(min=0) * flat, real)

    @property
    def tokens(self) -> int:
        """The number of tokens, padding left out."""
        return self.real.numel() if self.real is not None else self.shape[0] * self.shape[1]

    def unpack(self, x: Tensor) -> Tensor:
        """Pad `[tokens, ...]` to `[S, W, ...]`; padding holds some token's value, never NaN."""
        if self.cells is not None:
            x = x.index_select(0, self.cells)
        return x.unflatten(0, self.shape)

    def pack(self, x: Tensor) -> Tensor:
        """Drop the padding of `[S, W, ...]`: `[tokens, ...]`."""
        x = x.flatten(0, 1)
        return x if self.real is None else x.index_select(0, self.real)


@dataclass(frozen=True)
class Layout:
    """A batch as one row of L tokens, and where the hidden states of its completions are.

    `ids [1, L]` and `positions [1, L]`; `lengths [1, L]` is the length of the prompt and completion
    that a token belongs to (of the prompt alone if it is shared). `prompts [B, W]` and
    `completions [M, C]` are the two blocks (the second is None when every group has one
    completion); `parent [M]` is the row of `prompts` that a completion belongs to, and
    `prompt_lengths [M]` how many of its tokens the completion sees. `source [n]` is the index in
    the row of the hidden state of each token of `batch.tokens`, in row-major order.
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    prompts: Block
    completions: Block | None
    parent: Tensor
    prompt_lengths: Tensor
    source: Tensor


def token_mask(batch: Batch) -> Tensor:
    """Return `[N, T]`, True where a completion has a token, whether or not `batch.mask` counts it.

    The n True cells, in row-major order, are what `[n, ...]` tensors of this package run over.
    """
    return column_index(batch.tokens) < batch.lengths[:, None]


def column_index(x: Tensor) -> Tensor:
    """Return `[0, 1, ..., width)` on the device of the matrix `x [height, width]`."""
    return torch.arange(x.shape[1], device=x.device)


def input_lengths(batch: Batch, states: HiddenState) -> Tensor:
    """Return `[N]`: how many tokens of each completion the model needs as input."""
    if states is HiddenState.OF_TOKEN:
        return batch.lengths
    return (batch.lengths - 1).clamp(min=0)


def check_shapes(batch: Batch) -> None:
    """Assert that the tensors of a batch fit together; costs nothing on a device."""
    b, n = len(batch), batch.tokens.shape[0]
    assert batch.prompts.ndim == 2 and batch.tokens.ndim == 2, "token ids are matrices"
    assert batch.mask.shape == batch.tokens.shape, (batch.mask.shape, batch.tokens.shape)
    assert batch.prompts.shape[0] == b and batch.prompt_lengths.shape == (b,)
    assert batch.lengths.shape == (n,) and batch.group.shape == (n,)


def pack_batch(batch: Batch, states: HiddenState = HiddenState.PREDICTING) -> Layout:
    """Lay a batch out as one row.

    ValueError if a prompt has no token: the first token of its completion needs one before it.
    """
    check_shapes(batch)
    group_sizes = torch.bincount(batch.group, minlength=len(batch))  # (B,)
    alone = (group_sizes == 1)[batch.group]  # (N,) completions that are one sequence with a prompt
    kept = input_lengths(batch, states)  # (N,)
    rows, row_lengths = append_completions(batch, alone, states)  # (B, W), (B,)
    row_mask = column_index(rows) < row_lengths[:, None]  # (B, W)
    prompts = Block.of(row_mask)
    row_starts = row_lengths.cumsum(0) - row_lengths  # (B,) index of each first token in the row
    ids = [rows[row_mask]]  # each of the three lists: (tokens of the block,)
    positions = [column_index(rows).expand_as(rows)[row_mask]]
    lengths = [row_lengths[:, None].expand_as(rows)[row_mask]]

    members = (~alone).nonzero().squeeze(1)  # (M,)
    parent = batch.group[members]  # (M,)
    prompt_lengths = batch.prompt_lengths[parent]  # (M,)
    completions = None
    # The state before completion n is of its prompt's last token; its own follow one by one.
    before = (row_starts + batch.prompt_lengths - 1)[batch.group]  # (N,)
    own = before + 1  # (N,)
    if members.numel():
        width = max(int(kept[members].max()), 1)
        tokens = batch.tokens[members, :width]  # (M, C)
        cells = column_index(tokens) < kept[members, None]  # (M, C)
        completions = Block.of(cells)
        ids.append(tokens[cells])
        positions.append((prompt_lengths[:, None] + column_index(tokens))[cells])
        lengths.append((prompt_lengths + kept[members])[:, None].expand_as(tokens)[cells])
        own[members] = prompts.tokens + kept[members].cumsum(0) - kept[members]

    offsets = column_index(batch.tokens)  # (T,)
    source = own[:, None] + offsets  # (N, T)
    if states is HiddenState.PREDICTING:
        source = torch.where(offsets == 0, before[:, None], source - 1)
    return Layout(
        ids=torch.cat(ids)[None],  # (1, L)
        positions=torch.cat(positions)[None],  # (1, L)
        lengths=torch.cat(lengths)[None],  # (1, L)
        prompts=prompts,
        completions=completions if completions is not None and completions.tokens else None,
        parent=parent,
        prompt_lengths=prompt_lengths,
        source=source[token_mask(batch)],  # (n,)
    )


def append_completions(batch: Batch, which: Tensor, states: HiddenState) -> tuple[Tensor, Tensor]:
    """Append the completions marked in `which [N]`, at most one per group, to their prompts.

    Returns right-padded rows `[B, W]` and their lengths `[B]`.
    """
    if not bool((batch.prompt_lengths > 0).all()):
        raise ValueError("a prompt has no token, so nothing predicts its completion's first one")
    members = which.nonzero().squeeze(1)  # (S,)
    groups = batch.group[members]  # (S,)
    kept = input_lengths(batch, states)[members]  # (S,)
    lengths = batch.prompt_lengths.index_add(0, groups, kept)  # (B,)
    rows = batch.prompts.new_zeros(len(batch), int(lengths.max()))  # (B, W)
    width = min(batch.prompts.shape[1], rows.shape[1])
    rows[:, :width] = batch.prompts[:, :width]
    if members.numel():
        cells = column_index(batch.tokens) < kept[:, None]  # (S, T)
        at = batch.prompt_lengths[groups, None] + column_index(batch.tokens)  # (S, T) column
        row = groups[:, None].expand_as(at)  # (S, T)
        rows[row[cells], at[cells]] = batch.tokens[members][cells]
    return rows, lengths


def ungroup(batch: Batch) -> Batch:
    """Make every completion a group of its own, with its prompt repeated."""
    return Batch(
        prompts=batch.prompts[batch.group],
        prompt_lengths=batch.prompt_lengths[batch.group],
        tokens=batch.tokens,
        lengths=batch.lengths,
        mask=batch.mask,
        group=torch.arange(batch.tokens.shape[0], device=batch.group.device),
    )


def count_work(
    batch: Batch,
    shared: bool,
    states: HiddenState = HiddenState.PREDICTING,
    lm_head: bool = True,
) -> Work:
    """Count what a forward pass over the batch computes, without laying it out.

    With `shared`, each prompt counts once per group. Only predicting states go through the LM head,
    unless a head for values reads them; heads for values and scores cost next to nothing.
    """
    prompts, kept = batch.prompt_lengths.double(), input_lengths(batch, states).double()
    own_prompt = prompts[batch.group]  # (N,)
    # A token attends to itself and everything before it: n (n + 1) / 2 pairs in n tokens.
    attended = (kept * own_prompt + kept * (kept + 1) / 2).sum()
    computed = prompts if shared else own_prompt
    return Work(
        tokens=int(computed.sum() + kept.sum()),
        attended=float((computed * (computed + 1) / 2).sum() + attended),
        scored=int(batch.lengths.sum()) if lm_head and states is HiddenState.PREDICTING else 0,
    )


def count_generation(batch: Batch, cached: int = 0) -> Work:
    """Count what drawing the completions of a batch computes, one token at a time with a cache.

    A prompt, and the prediction of its next token, count once per group. The first `cached` tokens
    of each prompt are in the cache from the start.
    """
    work, groups = count_work(batch, shared=True), len(batch)
    return Work(
        tokens=work.tokens - groups * cached,
        attended=work.attended - groups * cached * (cached + 1) / 2,
        scored=work.scored - len(batch.tokens) + groups,
    )

"""How a batch is laid out for the trunk: every token once, no padding, in a single row.

    [ trunk of group 1 | trunk of group 2 | ... | branch 1 | branch 2 | ... ]

The *trunk* of a group is its prompt; each of its completions is a *branch* that sees the prompt
and itself. A group of one completion has no branch: prompt and completion are one trunk, which
is plain causal attention. The last token of a completion predicts nothing, so it is left out,
unless its own state is what is asked for (`States.OWN`, for a score head).

Linear layers see `[1, L]` tokens without a pad among them; only attention unpacks them, to
`[B, W]` trunks and `[M, C]` branches (`alignzoo.policy.attention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from alignzoo.batch import Batch


class States(Enum):
    """Which hidden states stand for the tokens of a completion."""

    BEFORE = "of the token before, which predict it"
    OWN = "of the token itself, which has seen it"


class Work(NamedTuple):
    """What one forward pass computes: tokens, pairs (query, key) that attend, scored tokens."""

    tokens: int
    attended: float
    scored: int


@dataclass(frozen=True)
class Block:
    """Sequences of unequal length inside the packed row, as a padded matrix `[S, W]` and back.

    `cells [S*W]` is the place of each cell in the block's stretch of the row (pads point at its
    first token), `real` the cells that are tokens; both are None when nothing is padded.
    """

    shape: tuple[int, int]
    cells: Tensor | None
    real: Tensor | None

    @classmethod
    def of(cls, present: Tensor) -> Block:
        """From `present [S, W]`, True where there is a token."""
        shape = (present.shape[0], present.shape[1])
        flat = present.flatten()
        real = flat.nonzero().squeeze(1)
        if real.numel() == flat.numel():
            return cls(shape, None, None)
        return cls(shape, (flat.cumsum(0) - 1).clamp_(min=0) * flat, real)

    @property
    def tokens(self) -> int:
        return self.real.numel() if self.real is not None else self.shape[0] * self.shape[1]

    def unpack(self, x: Tensor) -> Tensor:
        """`[tokens, ...] -> [S, W, ...]`; pads hold some token's value, never NaN."""
        if self.cells is not None:
            x = x.index_select(0, self.cells)
        return x.unflatten(0, self.shape)

    def pack(self, x: Tensor) -> Tensor:
        """`[S, W, ...] -> [tokens, ...]`."""
        x = x.flatten(0, 1)
        return x if self.real is None else x.index_select(0, self.real)


@dataclass(frozen=True)
class Layout:
    """A batch as one row of L tokens, and where the states of its completions are.

    `ids [1, L]`, `positions [1, L]`, and `lengths [1, L]`, how long the prompt and completion are
    that a token belongs to (a prompt that is shared: how long it is itself); `trunk [B, W]` and
    `branches [M, C]` (None when every group has one completion); `parent [M]` is the trunk of each
    branch and `prompt_lengths [M]` how much of it the branch sees. `source [n]` is the token of
    the row whose hidden state stands for each present token of `batch.tokens`, in row-major order.
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    trunk: Block
    branches: Block | None
    parent: Tensor
    prompt_lengths: Tensor
    source: Tensor


def present(batch: Batch) -> Tensor:
    """`[N, T]`, True where a completion has a token, whether or not it counts in `mask`."""
    return steps(batch.tokens) < batch.lengths[:, None]


def steps(x: Tensor) -> Tensor:
    """`[0, 1, ..., width)` on the device of the matrix x."""
    return torch.arange(x.shape[1], device=x.device)


def kept_lengths(batch: Batch, states: States) -> Tensor:
    """`[N]`: how many tokens of each completion the trunk has to see."""
    return batch.lengths if states is States.OWN else (batch.lengths - 1).clamp(min=0)


def layout(batch: Batch, states: States = States.BEFORE) -> Layout:
    """The packed row of a batch. Every prompt needs a token, to predict the first one after it."""
    counts = torch.bincount(batch.group, minlength=len(batch))
    alone = (counts == 1)[batch.group]
    kept = kept_lengths(batch, states)
    rows, row_lengths = join(batch, alone, states)
    trunk_cells = steps(rows) < row_lengths[:, None]
    trunk = Block.of(trunk_cells)
    trunk_starts = row_lengths.cumsum(0) - row_lengths
    ids = [rows[trunk_cells]]
    positions = [steps(rows).expand_as(rows)[trunk_cells]]
    lengths = [row_lengths[:, None].expand_as(rows)[trunk_cells]]

    members = (~alone).nonzero().squeeze(1)
    parent = batch.group[members]
    prompt_lengths = batch.prompt_lengths[parent]
    branches = None
    # The token before completion n: the last of its prompt, then its own, one after the other.
    before = (trunk_starts + batch.prompt_lengths - 1)[batch.group]
    own = before + 1
    if members.numel():
        width = max(int(kept[members].max()), 1)
        tokens = batch.tokens[members, :width]
        cells = steps(tokens) < kept[members, None]
        branches = Block.of(cells)
        ids.append(tokens[cells])
        positions.append((prompt_lengths[:, None] + steps(tokens))[cells])
        lengths.append((prompt_lengths + kept[members])[:, None].expand_as(tokens)[cells])
        own[members] = trunk.tokens + kept[members].cumsum(0) - kept[members]

    offsets = steps(batch.tokens)
    source = own[:, None] + offsets
    if states is States.BEFORE:
        source = torch.where(offsets == 0, before[:, None], source - 1)
    return Layout(
        ids=torch.cat(ids)[None],
        positions=torch.cat(positions)[None],
        lengths=torch.cat(lengths)[None],
        trunk=trunk,
        branches=branches if branches is not None and branches.tokens else None,
        parent=parent,
        prompt_lengths=prompt_lengths,
        source=source[present(batch)],
    )


def join(batch: Batch, which: Tensor, states: States) -> tuple[Tensor, Tensor]:
    """Prompts followed by the completions named in `which [N]` (at most one per group).

    Gives `[B, W]`, right-padded, and lengths `[B]`.
    """
    if not bool((batch.prompt_lengths > 0).all()):
        raise ValueError("a prompt has no token, so nothing predicts its completion's first one")
    members = which.nonzero().squeeze(1)
    groups = batch.group[members]
    kept = kept_lengths(batch, states)[members]
    lengths = batch.prompt_lengths.index_add(0, groups, kept)
    rows = batch.prompts.new_zeros(len(batch), int(lengths.max()))
    width = min(batch.prompts.shape[1], rows.shape[1])
    rows[:, :width] = batch.prompts[:, :width]
    cells = steps(batch.tokens) < kept[:, None] if members.numel() else None
    if cells is not None:
        at = batch.prompt_lengths[groups, None] + steps(batch.tokens)
        row = groups[:, None].expand_as(at)
        rows[row[cells], at[cells]] = batch.tokens[members][cells]
    return rows, lengths


def ungroup(batch: Batch) -> Batch:
    """Every completion a group of its own, its prompt repeated."""
    return Batch(
        prompts=batch.prompts[batch.group],
        prompt_lengths=batch.prompt_lengths[batch.group],
        tokens=batch.tokens,
        lengths=batch.lengths,
        mask=batch.mask,
        group=torch.arange(batch.tokens.shape[0], device=batch.group.device),
    )


def work(batch: Batch, shared: bool, states: States = States.BEFORE) -> Work:
    """What a forward pass over the batch computes, without laying it out.

    Only states that predict go through the LM head; a score head costs next to nothing.
    """
    prompts, kept = batch.prompt_lengths.double(), kept_lengths(batch, states).double()
    mine = prompts[batch.group]
    # A token attends to itself and everything before it: n (n + 1) / 2 pairs in n tokens.
    branches = (kept * mine + kept * (kept + 1) / 2).sum()
    seen = prompts if shared else mine
    return Work(
        tokens=int(seen.sum() + kept.sum()),
        attended=float((seen * (seen + 1) / 2).sum() + branches),
        scored=int(batch.lengths.sum()) if states is States.BEFORE else 0,
    )

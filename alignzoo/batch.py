"""Groups of completions that share a prompt: the batch that every hook after the data gets.

A demonstration is a group of 1, a preference pair a group of 2 (chosen first), a GRPO group has
G completions. A prompt is stored once per group, so that the policy may compute it once. Lengths
say which positions exist and `mask` which of them count; nothing is ever read off a token id, so a
pad token that equals EOS does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One prompt and its completions as token ids, before collation.

    `masks[i][t]` is False for a token of completion i that is context only, not trained on (the
    user's turns inside a dialogue, the output of a tool); `None` means that all tokens count, and
    `counted` are the masks either way. `columns` hold one value per completion (a label, say) or a
    list with one value per token; `row` is the row of data.
    """

    prompt: list[int]
    completions: list[list[int]]
    masks: list[list[bool]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Tokens to process when the prompt is computed once."""
        return len(self.prompt) + sum(len(c) for c in self.completions)

    @property
    def counted(self) -> list[list[bool]]:
        """Which tokens of each completion count."""
        return [[True] * len(c) for c in self.completions] if self.masks is None else self.masks


@dataclass
class Batch:
    """B prompts and N completions; `group[n]` is the index of the prompt of completion n.

    Shapes: `prompts [B, P]`, `prompt_lengths [B]`, `tokens [N, T]`, `lengths [N]`, `mask [N, T]`
    (bool), `group [N]` (ascending). Padding is on the right. `columns` are tensors `[N]` or
    `[N, T]`; `rows` are the B rows of data. Columns are checked when a batch is made and by every
    method that returns one: `ValueError` for any other shape.
    """

    prompts: Tensor
    prompt_lengths: Tensor
    tokens: Tensor
    lengths: Tensor
    mask: Tensor
    group: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._check_columns()

    def _check_columns(self) -> None:
        for name, x in self.columns.items():
            if x.shape not in (self.tokens.shape, self.tokens.shape[:1]):
                raise ValueError(
                    f"column {name!r} is {list(x.shape)}; a column is [N] or [N, T], here "
                    f"[N, T] = {list(self.tokens.shape)}"
                )

    def __len__(self) -> int:
        """Return the number of groups."""
        return self.prompts.shape[0]

    def __getitem__(self, name: str) -> Tensor:
        """Return a column, `[N]` or `[N, T]`."""
        return self.columns[name]

    def grouped(self, values: Sequence[T]) -> list[list[T]]:
        """Split N values, one per completion, into B lists, one per group."""
        lists: list[list[T]] = [[] for _ in range(len(self))]
        for b, value in zip(self.group.tolist(), values, strict=True):
            lists[b].append(value)
        return lists

    def groups(self, x: Tensor) -> Tensor:
        """Reshape `[N, ...]` to `[B, G, ...]`; raise `ValueError` if groups differ in size."""
        size, rest = divmod(x.shape[0], len(self))
        counts = torch.bincount(self.group, minlength=len(self))
        if rest or not bool((counts == size).all()):
            raise ValueError(f"groups differ in size: {counts.tolist()}")
        return x.unflatten(0, (len(self), size))

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split `[N, ...]` into chosen and rejected, `[B, ...]` each.

        Raise `ValueError` if the groups are not pairs.
        """
        grouped = self.groups(x)
        if grouped.shape[1] != 2:
            raise ValueError(f"pairs() needs groups of 2 completions, not {grouped.shape[1]}")
        return grouped[:, 0], grouped[:, 1]

    def completions(self) -> list[list[int]]:
        """Return the token ids of each completion, without padding."""
        rows = zip(self.tokens, self.lengths.tolist(), strict=True)
        return [tokens[:length].tolist() for tokens, length in rows]

    def total(self, x: Tensor) -> Tensor:
        """Sum over the positions in `mask`: `[N, T] -> [N]`."""
        return torch.where(self.mask, self._per_token(x), 0.0).sum(-1)

    def mean(self, x: Tensor) -> Tensor:
        """Average over the positions in `mask`: `[N, T] -> [N]`; 0 if there are none."""
        return self.total(x) / self.mask.sum(-1).clamp(min=1)

    def last(self, x: Tensor) -> Tensor:
        """Take the value at the last token of each completion: `[N, T] -> [N]`."""
        ends = (self.lengths - 1).clamp(min=0)[:, None]  # (N, 1)
        return self._per_token(x).gather(1, ends).squeeze(1)

    def _per_token(self, x: Tensor) -> Tensor:
        """Return `x` if it is `[N, T]`; broadcasting `[N]` would pass unseen if N == T."""
        if x.shape != self.tokens.shape:
            raise ValueError(
                f"a value per token is [N, T] = {list(self.tokens.shape)}, not {list(x.shape)}"
            )
        return x

    def select(self, which: Sequence[int]) -> Batch:
        """Return the groups with these indices, in this order, trimmed to the padding they need.

        `which` may be empty.
        """
        self._check_columns()
        device = self.group.device
        chosen = torch.tensor(which, dtype=torch.long, device=device)  # (b,)
        members = [torch.nonzero(self.group == b).flatten() for b in which]
        index = torch.cat([chosen.new_empty(0), *members])  # (n,)
        sizes = torch.tensor([m.numel() for m in members], dtype=torch.long, device=device)
        prompt_lengths, lengths = self.prompt_lengths[chosen], self.lengths[index]  # (b,), (n,)
        width = max(int(lengths.max()), 1) if index.numel() else 1
        prompt_width = int(prompt_lengths.max()) if which else 1
        return replace(
            self,
            prompts=self.prompts[chosen, :prompt_width],  # (b, p)
            prompt_lengths=prompt_lengths,
            tokens=self.tokens[index, :width],  # (n, t)
            lengths=lengths,
            mask=self.mask[index, :width],
            group=torch.repeat_interleave(torch.arange(len(which), device=index.device), sizes),
            columns={
                name: (x[index, :width] if x.dim() == 2 else x[index])
                for name, x in self.columns.items()
            },
            rows=[self.rows[b] for b in which] if self.rows else [],
        )

    def answered(self) -> list[dict[str, Any]]:
        """Return the row of data that each completion answers, N of them."""
        return [self.rows[b] for b in self.group.tolist()]

    def sizes(self) -> list[int]:
        """Return the tokens per group when its prompt is computed once, B numbers."""
        completions = torch.zeros_like(self.prompt_lengths).index_add_(0, self.group, self.lengths)
        return (self.prompt_lengths + completions).tolist()

    def split(self, max_tokens: int) -> list[Batch]:
        """Split into micro-batches of at most `max_tokens` padded tokens, or of one larger group.

        Groups of similar length go together, which saves padding. A loss is a sum and a count, so
        the split has no effect on the update.
        """
        sizes = self.sizes()
        parts: list[list[int]] = []
        for b in sorted(range(len(self)), key=lambda b: -sizes[b]):
            # In descending order, the first group of a part is its widest.
            if parts and sizes[parts[-1][0]] * (len(parts[-1]) + 1) <= max_tokens:
                parts[-1].append(b)
            else:
                parts.append([b])
        return [self.select(part) for part in parts]

    def piecewise(self, function: Callable[[Batch], Tensor], max_tokens: int) -> Tensor:
        """Apply `function` to micro-batches and put its results together on the CPU.

        It maps a micro-batch to `[n]` or `[n, t]`, which become `[N]` or `[N, T]`, padded with 0.
        This serves columns: forward passes without gradient over more than one micro-batch.
        """
        out: Tensor | None = None
        indices = torch.arange(len(self.tokens))  # (N,)
        # A split reorders the groups; the column says which completions a micro-batch holds.
        for micro in replace(self, columns={**self.columns, "index": indices}).split(max_tokens):
            found = function(micro).cpu()  # (n,) or (n, t)
            if out is None:
                out = found.new_zeros(self.tokens.shape[: found.dim()])
            if found.dim() == 1:
                out[micro["index"]] = found
            else:
                out[micro["index"], : found.shape[1]] = found
        return torch.zeros(self.tokens.shape) if out is None else out

    def keep(self, which: Tensor) -> Batch:
        """Return the completions with `which [N]` (bool) True, and the groups that have any.

        The result may be empty; a step on it changes nothing.
        """
        self._check_columns()
        groups, group = self.group[which].unique(return_inverse=True)  # (b,), (n,)
        return replace(
            self,
            prompts=self.prompts[groups],
            prompt_lengths=self.prompt_lengths[groups],
            tokens=self.tokens[which],
            lengths=self.lengths[which],
            mask=self.mask[which],
            group=group,
            columns={name: x[which] for name, x in self.columns.items()},
            rows=[self.rows[b] for b in groups.tolist()] if self.rows else [],
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with all its tensors on `device`."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("prompts", "prompt_lengths", "tokens", "lengths", "mask", "group")
        }
        return replace(self, columns={k: v.to(device) for k, v in self.columns.items()}, **moved)


def collate(examples: Sequence[Example], pad: int = 0) -> Batch:
    """Make one batch of examples. `pad` fills unused cells; no code ever looks at them."""
    completions = [c for e in examples for c in e.completions]
    masks = [m for e in examples for m in e.counted]
    names = {name for e in examples for name in e.columns}
    return Batch(
        prompts=_pad([e.prompt for e in examples], pad),
        prompt_lengths=torch.tensor([len(e.prompt) for e in examples], dtype=torch.long),
        tokens=_pad(completions, pad),
        lengths=torch.tensor([len(c) for c in completions], dtype=torch.long),
        mask=_pad(masks, False, torch.bool),
        group=torch.tensor(
            [b for b, e in enumerate(examples) for _ in e.completions], dtype=torch.long
        ),
        columns={
            name: _column([v for e in examples for v in e.columns[name]]) for name in sorted(names)
        },
        rows=[e.row for e in examples],
    )


def concat(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches with the same columns, group after group."""
    width = max(batch.tokens.shape[1] for batch in batches)  # T
    prompts = max(batch.prompts.shape[1] for batch in batches)  # P
    firsts = [0, *accumulate(len(batch) for batch in batches)]
    for batch in batches:
        batch._check_columns()

    def widen(x: Tensor) -> Tensor:
        return pad(x, (0, width - x.shape[1])) if x.dim() == 2 else x

    return Batch(
        prompts=torch.cat([pad(b.prompts, (0, prompts - b.prompts.shape[1])) for b in batches]),
        prompt_lengths=torch.cat([b.prompt_lengths for b in batches]),
        tokens=torch.cat([widen(b.tokens) for b in batches]),
        lengths=torch.cat([b.lengths for b in batches]),
        mask=torch.cat([widen(b.mask) for b in batches]),
        group=torch.cat([b.group + first for b, first in zip(batches, firsts, strict=False)]),
        columns={
            name: torch.cat([widen(b.columns[name]) for b in batches])
            for name in batches[0].columns
        },
        rows=[row for b in batches for row in b.rows],
    )


def _column(values: list[Any]) -> Tensor:
    """Make `[N]` of values, or `[N, T]` of lists of values."""
    if values and isinstance(values[0], list):
        return _pad(values, 0, torch.tensor(values[0]).dtype)
    return torch.tensor(values)


def _pad(rows: Sequence[Sequence[Any]], value: Any, dtype: torch.dtype = torch.long) -> Tensor:
    width = max((len(r) for r in rows), default=0)
    out = torch.full((len(rows), max(width, 1)), value, dtype=dtype)  # (n, width)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return out

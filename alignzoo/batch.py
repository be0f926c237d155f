"""Groups of completions that share a prompt: what every hook after the data sees.

A demonstration is a group of 1, a preference pair a group of 2 (chosen first), a GRPO group has
G. Prompts are stored once per group, so that the policy may compute them once. Which positions
exist is said by lengths and which count by `mask`; nothing is ever read off a token id, so a pad
token that equals EOS does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Example:
    """One prompt and its completions as token ids, before they are put into a batch.

    `masks[i][t]` is False for a token of completion i that is there but is not to be learnt (the
    user's turns inside a dialogue); `None` means that all count. `columns` holds one value per
    completion (a label, say) or a list with one per token of it; `row` is the row of data it came
    from.
    """

    prompt: list[int]
    completions: list[list[int]]
    masks: list[list[bool]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Tokens that the policy must process when the prompt is computed once."""
        return len(self.prompt) + sum(len(c) for c in self.completions)


@dataclass
class Batch:
    """B prompts and N completions, `group[n]` being the prompt of completion n.

    Shapes: `prompts [B, P]`, `prompt_lengths [B]`, `tokens [N, T]`, `lengths [N]`, `mask [N, T]`
    (bool), `group [N]` (ascending). Padding is on the right. `columns` are tensors whose first
    dimension is N; `rows` are the B rows of data.
    """

    prompts: Tensor
    prompt_lengths: Tensor
    tokens: Tensor
    lengths: Tensor
    mask: Tensor
    group: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of groups."""
        return self.prompts.shape[0]

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def groups(self, x: Tensor) -> Tensor:
        """`[N, ...] -> [B, G, ...]`; an error when the groups are not all of one size."""
        size, rest = divmod(x.shape[0], len(self))
        counts = torch.bincount(self.group, minlength=len(self))
        if rest or not bool((counts == size).all()):
            raise ValueError(f"groups differ in size: {counts.tolist()}")
        return x.unflatten(0, (len(self), size))

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, ...] -> (chosen [B, ...], rejected [B, ...])` of a batch of pairs."""
        grouped = self.groups(x)
        if grouped.shape[1] != 2:
            raise ValueError(f"pairs() needs groups of 2 completions, not {grouped.shape[1]}")
        return grouped[:, 0], grouped[:, 1]

    def total(self, x: Tensor) -> Tensor:
        """`[N, T] -> [N]`: the sum over the positions in `mask`."""
        return torch.where(self.mask, x, 0.0).sum(-1)

    def mean(self, x: Tensor) -> Tensor:
        """`[N, T] -> [N]`: the mean over the positions in `mask`; 0 where there is none."""
        return self.total(x) / self.mask.sum(-1).clamp(min=1)

    def last(self, x: Tensor) -> Tensor:
        """`[N, T] -> [N]`: the value at the last token of each completion."""
        return x.gather(1, (self.lengths - 1).clamp(min=0)[:, None]).squeeze(1)

    def select(self, which: Sequence[int]) -> Batch:
        """The groups named, in that order, with padding trimmed to what they need; maybe none."""
        device = self.group.device
        chosen = torch.tensor(which, dtype=torch.long, device=device)
        members = [torch.nonzero(self.group == b).flatten() for b in which]
        index = torch.cat([chosen.new_empty(0), *members])
        sizes = torch.tensor([m.numel() for m in members], dtype=torch.long, device=device)
        prompt_lengths, lengths = self.prompt_lengths[chosen], self.lengths[index]
        width = max(int(lengths.max()), 1) if index.numel() else 1
        prompt_width = int(prompt_lengths.max()) if which else 1
        return replace(
            self,
            prompts=self.prompts[chosen, :prompt_width],
            prompt_lengths=prompt_lengths,
            tokens=self.tokens[index, :width],
            lengths=lengths,
            mask=self.mask[index, :width],
            group=torch.repeat_interleave(torch.arange(len(which), device=index.device), sizes),
            columns={
                name: (x[index, :width] if x.shape[:2] == self.tokens.shape else x[index])
                for name, x in self.columns.items()
            },
            rows=[self.rows[b] for b in which] if self.rows else [],
        )

    def sizes(self) -> list[int]:
        """Tokens per group when its prompt is computed once, `[B]`."""
        completions = torch.zeros_like(self.prompt_lengths).index_add_(0, self.group, self.lengths)
        return (self.prompt_lengths + completions).tolist()

    def split(self, max_tokens: int) -> list[Batch]:
        """Micro-batches of at most `max_tokens` padded tokens (or of one group that is larger).

        Groups of like length go together, so that little padding is paid for. A loss is a sum and
        a count, so the split has no effect on the update.
        """
        sizes = self.sizes()
        parts: list[list[int]] = []
        for b in sorted(range(len(self)), key=lambda b: -sizes[b]):
            # Sorted downwards, so the first group of a part is its widest.
            if parts and sizes[parts[-1][0]] * (len(parts[-1]) + 1) <= max_tokens:
                parts[-1].append(b)
            else:
                parts.append([b])
        return [self.select(part) for part in parts]

    def piecewise(self, function: Callable[[Batch], Tensor], max_tokens: int) -> Tensor:
        """`[N]` or `[N, T]` from a function that is given micro-batches and makes `[n]` or `[n, t]`
        of each.

        What needs no gradient but a forward pass over more than one of them: a column to be.
        """
        out: Tensor | None = None
        places = torch.arange(len(self.tokens))
        # A split puts groups of like length together; the places say which completions they were.
        for micro in replace(self, columns={**self.columns, "place": places}).split(max_tokens):
            found = function(micro).cpu()
            if out is None:
                out = found.new_zeros(self.tokens.shape[: found.dim()])
            if found.dim() == 1:
                out[micro["place"]] = found
            else:
                out[micro["place"], : found.shape[1]] = found
        return torch.zeros(self.tokens.shape) if out is None else out

    def keep(self, which: Tensor) -> Batch:
        """The completions for which `which [N]` is true, and the groups that have any of them.

        It may be none at all, from which a step learns nothing.
        """
        groups, group = self.group[which].unique(return_inverse=True)
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
        moved = {
            name: getattr(self, name).to(device)
            for name in ("prompts", "prompt_lengths", "tokens", "lengths", "mask", "group")
        }
        return replace(self, columns={k: v.to(device) for k, v in self.columns.items()}, **moved)


def collate(examples: Sequence[Example], pad: int = 0) -> Batch:
    """Examples to one batch. `pad` fills unused cells; no code ever looks at them."""
    completions = [c for e in examples for c in e.completions]
    masks = [
        m
        for e in examples
        for m in (e.masks if e.masks is not None else [[True] * len(c) for c in e.completions])
    ]
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


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches with the same columns as one, their groups one after the other."""
    width = max(batch.tokens.shape[1] for batch in batches)
    prompts = max(batch.prompts.shape[1] for batch in batches)
    firsts = [0, *accumulate(len(batch) for batch in batches)]

    def per_token(batch: Batch, x: Tensor) -> Tensor:
        return pad(x, (0, width - x.shape[1])) if x.shape[:2] == batch.tokens.shape else x

    return Batch(
        prompts=torch.cat([pad(b.prompts, (0, prompts - b.prompts.shape[1])) for b in batches]),
        prompt_lengths=torch.cat([b.prompt_lengths for b in batches]),
        tokens=torch.cat([per_token(b, b.tokens) for b in batches]),
        lengths=torch.cat([b.lengths for b in batches]),
        mask=torch.cat([per_token(b, b.mask) for b in batches]),
        group=torch.cat([b.group + first for b, first in zip(batches, firsts, strict=False)]),
        columns={
            name: torch.cat([per_token(b, b.columns[name]) for b in batches])
            for name in batches[0].columns
        },
        rows=[row for b in batches for row in b.rows],
    )


def _column(values: list[Any]) -> Tensor:
    """`[N]`, or of lists `[N, T]`."""
    if values and isinstance(values[0], list):
        return _pad(values, 0, torch.tensor(values[0]).dtype)
    return torch.tensor(values)


def _pad(rows: Sequence[Sequence[Any]], value: Any, dtype: torch.dtype = torch.long) -> Tensor:
    width = max((len(r) for r in rows), default=0)
    out = torch.full((len(rows), max(width, 1)), value, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return out

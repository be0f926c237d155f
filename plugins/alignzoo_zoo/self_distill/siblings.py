"""A successful completion of the same prompt as the privilege: SDPO, Huebotter et al. 2026.

https://arxiv.org/abs/2601.20802
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alignzoo import Batch


def find_siblings(rewards: Tensor, success: float) -> Tensor:
    """Return the first other completion of a group whose reward is at least `success`.

    Args:
        rewards: `[B, G]`, NaN for a completion without one.

    Returns:
        For each completion the index of the other one in its group, `[B, G]`, -1 if there is none.
    """
    good = rewards >= success  # (B, G)
    first = good.int().argmax(-1, keepdim=True)  # (B, 1)
    second = good.scatter(1, first, False).int().argmax(-1, keepdim=True)
    places = torch.arange(rewards.shape[1]).expand_as(rewards)
    others = good.sum(-1, keepdim=True) - good.int()  # (B, G)
    return torch.where(places == first, second, first).where(others > 0, -1)


def show_siblings(batch: Batch, texts: Sequence[str], success: float, column: str) -> Batch:
    """Return the completions that have a successful sibling, each with its own prompt and row.

    The row has the text of the sibling in a column of this name.

    Args:
        texts: what each completion says, N of them.
    """
    found = find_siblings(batch.groups(batch["rewards"]), success)  # (B, G)
    groups, size = found.shape
    shown = (found + size * torch.arange(groups)[:, None]).flatten().tolist()
    apart = replace(
        batch,
        prompts=batch.prompts[batch.group],
        prompt_lengths=batch.prompt_lengths[batch.group],
        group=torch.arange(len(texts)),
        rows=[row | {column: texts[i]} for row, i in zip(batch.answered(), shown, strict=True)],
    )
    return apart.keep((found >= 0).flatten())

"""Log-probs of several tokens at each position, through the LM head in chunks.

As in `alignzoo.policy.logprobs` there is never a tensor `[n, V]`: the backward pass makes the
logits of each chunk again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignzoo.policy.logprobs import (
    HeadGradients,
    LogitTransform,
    chunk_logits,
    chunk_rows,
    operands,
)


def chunked_top_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transform: LogitTransform,
    top_k: int,
    ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute log-probs of tokens at each position, and their ids, both `[n, K]`.

    They are the `top_k` likeliest tokens, the likeliest first, or the given `ids [n, K]`. `hidden
    [n, h]`, `weight [V, h]` and `bias [V]` are as in `chunked_logprobs`; the log-probs are
    differentiable, once, with respect to them.
    """
    hidden = operands(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return _TopLogprobs.apply(hidden, weight, bias, transform, top_k, ids)


class _TopLogprobs(torch.autograd.Function):
    """See `chunked_top_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        transform: LogitTransform,
        top_k: int,
        given: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        matrix = weight.to(hidden.dtype)  # (V, h)
        values, chosen = [], []
        for rows in chunk_rows(hidden, matrix):  # c rows at a time
            logp = chunk_logits(hidden[rows], matrix, bias, transform)[0].log_softmax(-1)  # (c, V)
            ids = given[rows] if given is not None else logp.topk(top_k).indices  # (c, K)
            chosen.append(ids)
            values.append(logp.gather(1, ids))
        width = top_k if given is None else given.shape[1]
        ids = torch.cat(chosen) if chosen else torch.empty(0, width, dtype=torch.long)
        ctx.transform = transform
        ctx.save_for_backward(hidden, weight, bias, ids)
        ctx.mark_non_differentiable(ids)
        return torch.cat(values) if values else hidden.new_empty(0, width), ids

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple:
        hidden, weight, bias, ids = ctx.saved_tensors
        matrix = weight.to(hidden.dtype)
        gradients = HeadGradients(ctx, hidden, weight, bias, grad.dtype)
        for rows in chunk_rows(hidden, matrix):
            z, damping = chunk_logits(hidden[rows], matrix, bias, ctx.transform)  # (c, V) both
            # d log p(k) / d z = e_k - p
            dz = z.softmax(-1).mul_(-grad[rows].sum(1, keepdim=True))
            dz.scatter_add_(1, ids[rows], grad[rows].to(dz.dtype))
            gradients.add(rows, dz, damping, hidden, matrix)
        return *gradients.found(), *(None,) * 3

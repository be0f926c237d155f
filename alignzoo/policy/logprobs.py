"""Log-probabilities through the LM head, without ever holding `[n, V]` logits.

The rows are cut into chunks; the logits of one chunk are made, used and overwritten. When the
head is frozen (LoRA), the gradient with respect to the hidden states is prepared while the logits
are there, so the product with the vocabulary is never computed a second time:

    d log p(t) / d h  =  (e_t - p) W        (e_t: one-hot of the target)

which is kept as `[n, h]`. When the head is trained, the gradient of the weight needs the incoming
gradient, so the backward pass makes the logits again, chunk by chunk.

Chosen by measurement, 768 rows of 256 against 32,000 / 50,257 tokens on one core of a Xeon,
forward and backward: this 0.20 / 0.33 s, `F.log_softmax` of all logits 0.34 / 0.59 s,
`F.linear_cross_entropy` of torch 2.13 0.34 / 0.57 s, in chunks 0.73 s and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_CHUNK = 2**23  # logits held at once: 32 MB of float32, the fastest size measured
GPU_CHUNK = 2**26  # 256 MB: enough rows to fill the device, little beside the activations
MIN_ROWS = 64  # fewer rows make the products with the weight slow
_assumed: ContextVar[str | None] = ContextVar("alignzoo_assumed_device", default=None)


@contextmanager
def assume_device(device_type: str) -> Iterator[None]:
    """Compute in the chunks and the precision of another type of device, to measure its memory."""
    token = _assumed.set(device_type)
    try:
        yield
    finally:
        _assumed.reset(token)


class LogitTransform(NamedTuple):
    """Softcap, then temperature: from raw logits `h W' + b` to those of the distribution."""

    temperature: float = 1.0
    softcap: float | None = None


def chunked_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    entropy: bool = False,
    log_sum_p2: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute log p(target) and, on request, the entropy of p and log sum(p^2), all `[n]` float32.

    `hidden [n, h]`, `weight [V, h]`, `targets [n]`, `bias [V]`. With z = hidden W' + bias,
    p = softmax(softcap * tanh(z / softcap) / temperature). Products take the dtype of `hidden` and
    are accumulated in float32, never rounded to bfloat16 (float64 stays float64). The first two
    are differentiable, once, with respect to hidden, weight and bias.
    """
    assert hidden.ndim == 2 and weight.ndim == 2 and hidden.shape[1] == weight.shape[1], (
        hidden.shape,
        weight.shape,
    )
    assert targets.shape == hidden.shape[:1], (targets.shape, hidden.shape)
    hidden = operands(hidden)
    # Autocast would silently round the logits.
    with torch.autocast(hidden.device.type, enabled=False):
        return _Logprobs.apply(
            hidden, weight, bias, targets, LogitTransform(temperature, softcap), entropy, log_sum_p2
        )


class _Logprobs(torch.autograd.Function):
    """See `chunked_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        transform: LogitTransform,
        entropy: bool,
        log_sum_p2: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        frozen = not any(ctx.needs_input_grad[1:3])
        prepare = ctx.needs_input_grad[0] and frozen
        matrix = weight.to(hidden.dtype)  # (V, h)
        logprobs = hidden.new_empty(hidden.shape[0], dtype=_wide(hidden.dtype))
        entropies = torch.empty_like(logprobs) if entropy else None
        log_sums = torch.empty_like(logprobs) if log_sum_p2 else None
        slopes = torch.empty_like(hidden) if prepare else None  # (n, h): d log p(t) / d hidden

        for rows in chunk_rows(hidden, matrix):  # c rows at a time
            z, damping = chunk_logits(hidden[rows], matrix, bias, transform)  # (c, V) both
            target = targets[rows, None]  # (c, 1)
            picked = z.gather(1, target)  # (c, 1)
            top = z.amax(1, keepdim=True)  # (c, 1)
            e = z.sub_(top).exp_() if not entropy else torch.exp(z.sub_(top))  # (c, V)
            total = e.sum(1, keepdim=True)  # (c, 1)
            logprobs[rows] = (picked - top - total.log()).squeeze(1)
            if entropies is not None:
                mean = (e * z).sum(1) / total.squeeze(1)  # (c,)
                entropies[rows] = total.squeeze(1).log() - mean
            if log_sums is not None:
                norm = torch.linalg.vector_norm(e, dim=1)  # (c,)
                log_sums[rows] = 2 * (norm.log() - total.squeeze(1).log())
            if slopes is not None:
                p = e.div_(-total)  # (c, V), minus p
                if damping is None:
                    # e_t W is a row of W, so the one-hot is never added to p.
                    slope = product(p.to(hidden.dtype), matrix) + matrix[targets[rows]]
                else:
                    p.scatter_add_(1, target, torch.ones_like(picked))
                    slope = product(p.mul_(damping).to(hidden.dtype), matrix)
                slopes[rows] = slope.div_(transform.temperature).to(slopes.dtype)

        ctx.transform, ctx.entropy = transform, entropy
        # Entropy with a gradient is rare (a bonus, not a metric): recomputed when it is needed.
        recompute = not frozen or entropy
        ctx.save_for_backward(
            slopes, *((hidden, weight, bias, targets) if recompute else [None] * 4)
        )
        if log_sums is not None:
            ctx.mark_non_differentiable(log_sums)
        return logprobs, entropies, log_sums

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, grad_entropy: Tensor | None, _: Tensor | None
    ) -> tuple:
        slopes, hidden, weight, bias, targets = ctx.saved_tensors
        if grad_entropy is None:
            if grad is None:
                return (None,) * 7
            if slopes is not None:
                return slopes * grad.unsqueeze(1).to(slopes.dtype), *(None,) * 6

        matrix = weight.to(hidden.dtype)
        gradients = HeadGradients(ctx, hidden, weight, bias, _wide(hidden.dtype))
        for rows in chunk_rows(hidden, matrix):
            z, damping = chunk_logits(hidden[rows], matrix, bias, ctx.transform)  # (c, V) both
            logp = z.sub_(z.logsumexp(1, keepdim=True))  # (c, V)
            p = logp.exp()
            dz = torch.zeros_like(p)  # (c, V)
            if grad_entropy is not None:
                # d H / d z = -p (log p + H)
                negative = (p * logp).sum(1, keepdim=True)  # (c, 1), minus H
                dz += p * (negative - logp) * grad_entropy[rows, None]
            if grad is not None:
                # d log p(t) / d z = e_t - p
                dz.addcmul_(p, grad[rows, None], value=-1)
                dz.scatter_add_(1, targets[rows, None], grad[rows, None].to(dz.dtype))
            gradients.add(rows, dz, damping, hidden, matrix)
        return *gradients.found(), *(None,) * 4


class HeadGradients:
    """The gradients of hidden states and of the head, added up chunk by chunk.

    Those that `ctx` says nothing needs are None. Sums over chunks have the type `wide`.
    """

    def __init__(
        self, ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, wide: torch.dtype
    ):
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        self.temperature = ctx.transform.temperature
        self.weight, self.bias = weight, bias
        self.d_hidden = torch.empty_like(hidden) if need_hidden else None
        self.d_weight = torch.zeros_like(weight, dtype=wide) if need_weight else None
        self.d_bias = torch.zeros_like(bias, dtype=wide) if need_bias and bias is not None else None

    def add(
        self, rows: slice, dz: Tensor, damping: Tensor | None, hidden: Tensor, matrix: Tensor
    ) -> None:
        """Add a chunk, from the gradient `dz [c, V]` of its final logits, which is overwritten."""
        if damping is not None:
            dz *= damping
        dz = dz.div_(self.temperature)
        if self.d_bias is not None:
            self.d_bias += dz.sum(0)
        dz = dz.to(hidden.dtype)
        if self.d_hidden is not None:
            self.d_hidden[rows] = product(dz, matrix).to(self.d_hidden.dtype)  # (c, h)
        if self.d_weight is not None:
            self.d_weight += product(dz.t(), hidden[rows])  # (V, h)

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of the hidden states, the weight and the bias."""
        return (
            self.d_hidden,
            self.d_weight.to(self.weight.dtype) if self.d_weight is not None else None,
            self.d_bias.to(self.bias.dtype)
            if self.d_bias is not None and self.bias is not None
            else None,
        )


def chunk_rows(hidden: Tensor, matrix: Tensor) -> list[slice]:
    """Cut the rows so that the logits of a chunk stay within the bound for the device."""
    bound = CPU_CHUNK if _device_type(hidden) == "cpu" else GPU_CHUNK
    rows = max(bound // matrix.shape[0], MIN_ROWS)
    return [slice(i, i + rows) for i in range(0, hidden.shape[0], rows)]


def chunk_logits(
    hidden: Tensor, matrix: Tensor, bias: Tensor | None, transform: LogitTransform
) -> tuple[Tensor, Tensor | None]:
    """Return a chunk's final logits `[c, V]`, and d softcapped / d raw if there is a softcap."""
    z, damping = product(hidden, matrix.t()), None
    if bias is not None:
        z += bias
    if transform.softcap is not None:
        z = z.div_(transform.softcap).tanh_()
        damping = 1 - z.square()
        z *= transform.softcap
    if transform.temperature != 1.0:
        z /= transform.temperature
    return z, damping


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, accumulated in float32 (float64 stays float64)."""
    if a.dtype in (torch.float32, torch.float64):
        return torch.mm(a, b)
    return torch.mm(a, b, out_dtype=torch.float32)


def operands(hidden: Tensor) -> Tensor:
    """Return states `[n, h]` in a precision whose products can be accumulated in float32."""
    half = hidden.dtype in (torch.bfloat16, torch.float16)
    return hidden.float() if half and not _keeps_float32(hidden) else hidden


def _keeps_float32(x: Tensor) -> bool:
    """Return True if half-precision operands can give a float32 product, as on NVIDIA GPUs."""
    return _device_type(x) == "cuda" and torch.version.hip is None


def _device_type(x: Tensor) -> str:
    return _assumed.get() or x.device.type


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that logits are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32

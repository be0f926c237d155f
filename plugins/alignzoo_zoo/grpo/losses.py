"""The losses of the GRPO family, as pure functions on tensors.

Arguments, of N completions of up to T tokens, in nats:

    logprobs    log pi(y_t|x, y_<t), `[N, T]`, with gradient
    log_ratio   log pi - log pi_old, `[N, T]`, pi_old the policy that sampled the tokens
    ratio       r_t = pi / pi_old, `[N, T]`, or one per completion, `[N, 1]`
    advantages  A, one per completion, `[N, 1]`; or that times a positive weight for each token,
                `[N, T]`, which then weighs the token's loss
    mask        the tokens y_t in the loss, bool, `[N, T]`; |y| is their number

A loss is one value per token, `[N, T]`, or one for all tokens of a completion, `[N, 1]`. A positive
multiple of A gives the same multiple of the loss. The plain clipped losses have no function here:
they are `alignzoo.functional.clipped_surrogate`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignzoo.functional import MAX_LOG_RATIO, importance_ratio

MIN_LOG_WEIGHT = math.log(1e-8)


def sequence_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Compute GSPO's ratio of a completion, s = (pi(y|x) / pi_old(y|x))^(1/|y|), `[N, 1]`.

    Zheng et al. 2025, https://arxiv.org/abs/2507.18071.
    """
    return importance_ratio(_token_mean(log_ratio, mask))


def cispo_loss(logprobs: Tensor, ratio: Tensor, advantages: Tensor, upper: float) -> Tensor:
    """Compute CISPO's loss, which clips the weight of a token, so that all tokens keep a gradient.

        L = -sg(min(r_t, upper)) A log pi(y_t),    sg: stop gradient

    MiniMax 2025, https://arxiv.org/abs/2506.13585; there is no lower bound, as in the paper.
    """
    return -ratio.clamp(max=upper).detach() * advantages * logprobs


def sapo_loss(ratio: Tensor, advantages: Tensor, positive: float, negative: float) -> Tensor:
    """Compute SAPO's loss, with a smooth gate in place of the clip.

        L = -4 / tau sigmoid(tau (r_t - 1)) A,    tau = `positive` if A > 0, else `negative`

    At r = 1 its gradient is that of -r A. Gao et al. 2025, https://arxiv.org/abs/2511.20347.
    """
    tau = torch.where(advantages > 0, positive, negative)
    return -4 / tau * (tau * (ratio - 1)).sigmoid() * advantages


def gmpo_loss(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, lower: float, upper: float
) -> Tensor:
    """Compute GMPO's loss from the geometric mean of clipped token ratios, `[N, 1]`.

        L = -A (prod over t of min(r_t, upper))^(1/|y|)    if A > 0
        L = -A (prod over t of max(r_t, lower))^(1/|y|)    if A <= 0

    Algorithm 1 of Zhao et al. 2025, https://arxiv.org/abs/2507.20673, with (lower, upper) =
    (e^-0.4, e^0.4).
    """
    clipped = torch.where(
        advantages > 0, log_ratio.clamp(max=math.log(upper)), log_ratio.clamp(min=math.log(lower))
    )
    return -advantages * importance_ratio(_token_mean(clipped, mask))


def vespo_loss(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    positive: tuple[float, float],
    negative: tuple[float, float],
) -> Tensor:
    """Compute VESPO's loss: tokens weighted by a smooth function of the sequence ratio w.

        L = -sg(phi(w)) A log pi(y_t)
        phi(w) = w^k exp(lambda (1 - w)),    w = pi(y|x) / pi_old(y|x)

    (k, lambda) = `positive` if A >= 0, else `negative`; phi(1) = 1. Shen et al. 2026,
    https://arxiv.org/abs/2602.10693.
    """
    clamped = torch.where(mask, log_ratio.detach(), 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    log_w = clamped.sum(-1, keepdim=True).clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO)
    k, rate = (torch.where(advantages >= 0, p, n) for p, n in zip(positive, negative, strict=True))
    phi = (k * log_w + rate * (1 - log_w.exp())).exp()
    return -phi * advantages * logprobs


def _token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average over the tokens in the mask, `[N, T] -> [N, 1]`; 0 if there are none."""
    total = torch.where(mask, x, 0.0).sum(-1, keepdim=True)
    return total / mask.sum(-1, keepdim=True).clamp(min=1)

"""The losses of the GRPO family, as pure functions on tensors.

Arguments, of N completions of up to T tokens, in nats:

    logprobs    log pi(y_t|x, y_<t), `[N, T]`, with gradient
    log_ratio   log pi - log pi_old, `[N, T]`, pi_old the policy that sampled the tokens
    ratio       r_t = pi / pi_old, `[N, T]`, or one per completion, `[N, 1]`
    advantages  A, one per completion, `[N, 1]`; or that times a positive weight for each token,
                `[N, T]`, which then weighs the token's loss
    mask        the tokens y_t in the loss, bool, `[N, T]`; |y| is their number
    drawn       log mu(y_t|x, y_<t), `[N, T]`, mu the sampler's policy: pi_old, unless another
                program samples

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
MIN_REST = 1e-8  # least probability of all other tokens, so that its logarithm is finite


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


def signed_tv(logprobs: Tensor, drawn: Tensor) -> Tensor:
    """Compute the binary total variation of pi from mu, with the sign of pi - mu, `[N, T]`.

        D_t = |pi(y_t) - mu(y_t)|

    It is that of the distributions over two events, the sampled token or any other: a lower bound
    of the total variation over the vocabulary. It has no gradient. Qi et al. 2026 (DPPO),
    https://arxiv.org/abs/2602.04879.
    """
    return logprobs.detach().exp() - drawn.exp()


def signed_kl(logprobs: Tensor, drawn: Tensor) -> Tensor:
    """Compute the binary KL(mu || pi), with the sign of pi - mu, in nats, `[N, T]`.

        D_t = mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi)),    at y_t

    The events are those of `signed_tv`. It has no gradient.
    """
    policy = logprobs.detach()
    rest, drawn_rest = ((-x.expm1()).clamp(min=MIN_REST).log() for x in (policy, drawn))
    kl = drawn.exp() * (drawn - policy) + drawn_rest.exp() * (drawn_rest - rest)
    return torch.where(policy < drawn, -kl, kl)


def dppo_loss(
    ratio: Tensor, divergence: Tensor, advantages: Tensor, lower: float, upper: float
) -> Tensor:
    """Compute DPPO's loss: a token that would move on past its trust region has no gradient.

        L = -M_t r_t A
        M_t = 0 if A > 0, pi > mu and D_t > upper, or A < 0, pi < mu and D_t > -lower;  else 1

    Qi et al. 2026, https://arxiv.org/abs/2602.04879.

    Args:
        divergence: D_t with the sign of pi - mu, `[N, T]`: `signed_tv` or `signed_kl`.
        lower: minus the threshold of tokens that lose probability.
    """
    outside = ((divergence > upper) & (advantages > 0)) | ((divergence < lower) & (advantages < 0))
    return torch.where(outside, 0.0, -ratio * advantages)


def kl_cov_loss(log_ratio: Tensor, advantages: Tensor, chosen: Tensor, penalty: float) -> Tensor:
    """Compute KL-Cov's loss, which holds the chosen tokens back, `[N, T]`.

        L = -r_t A + [t is chosen] `penalty` |log r_t|

    Cui et al. 2025, https://arxiv.org/abs/2505.22617, with |log r| as the estimate of the KL to
    pi_old, as in the authors' code.

    Args:
        chosen: tokens with the largest covariances, bool, `[N, T]`.
    """
    return -importance_ratio(log_ratio) * advantages + penalty * chosen * log_ratio.abs()


def _token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average over the tokens in the mask, `[N, T] -> [N, 1]`; 0 if there are none."""
    total = torch.where(mask, x, 0.0).sum(-1, keepdim=True)
    return total / mask.sum(-1, keepdim=True).clamp(min=1)

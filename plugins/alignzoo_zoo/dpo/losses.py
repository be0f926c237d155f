"""The losses of direct preference optimisation, as pure functions on tensors.

Everywhere r = log pi(y|x) - log pi_ref(y|x) is a completion's log-ratio, summed over its tokens,
in nats; `chosen` and `rejected` hold those of the two completions of each pair and `margin` their
difference, all `[B]`. `beta` is the strength of the pull to the reference, > 0, in 1/nats, and
`smoothing` the probability that a label is wrong, in [0, 0.5). A loss is one value per pair, `[B]`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]
MAX_EXPONENT = 80.0  # exp(88) is the end of float32


def exo_pair_loss(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """EXO for pairs: the reverse KL from the policy's preference to the labels'.

        L = KL(q || p),  q = (sigmoid(beta margin), sigmoid(-beta margin)),  p = (1 - eps, eps)

    with eps = `smoothing` > 0. Equation 16 of Ji et al. 2024, https://arxiv.org/abs/2402.00856.
    """
    log_q, log_not_q = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    won = log_q.exp() * (log_q - math.log1p(-smoothing))
    return won + log_not_q.exp() * (log_not_q - math.log(smoothing))


def nca_pair_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """NCA for pairs: the rewards themselves, not their difference alone, are told from noise.

        L = -log sigmoid(beta r_w) - 1/2 log sigmoid(-beta r_w) - 1/2 log sigmoid(-beta r_l)

    Chen et al. 2024, https://arxiv.org/abs/2402.05369.
    """
    noise = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
    return -F.logsigmoid(beta * chosen) - noise / 2


def robust_loss(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """Robust DPO: unbiased when labels are flipped with probability eps = `smoothing`.

        L = (-(1 - eps) log sigmoid(beta margin) + eps log sigmoid(-beta margin)) / (1 - 2 eps)

    Ray Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409.
    """
    kept, flipped = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return (-(1 - smoothing) * kept + smoothing * flipped) / (1 - 2 * smoothing)


def bco_pair_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """BCO for pairs: a classifier of single completions.

        L = -log sigmoid(beta r_w) - log sigmoid(-beta r_l)

    Jung et al. 2024, https://arxiv.org/abs/2404.04656, with a reward shift delta of zero.
    """
    return -F.logsigmoid(beta * chosen) - F.logsigmoid(-beta * rejected)


def sppo_hard_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """SPPO with hard labels: L = (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2.

    Equation 4.7 of Wu et al. 2024, https://arxiv.org/abs/2405.00675, with eta = 1 / beta and the
    probabilities of winning 1 and 0.
    """
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


def sorted_margin(upper: Tensor, lower: Tensor) -> Tensor:
    """AOT: the i-th smallest of `upper` less the i-th smallest of `lower`.

    `sigmoid_loss` of it asks that one distribution of rewards dominates the other (first-order
    stochastic dominance), not that every pair is in order. Melnyk et al. 2024,
    https://arxiv.org/abs/2406.05882: `upper` and `lower` are log p(y_w|x) - log p(y_l|x) under the
    policy and under the reference ("paired"), or `chosen` and `rejected` ("unpaired").
    """
    return upper.sort().values - lower.sort().values


def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """APO-zero, chosen up and rejected down: L = 1 - sigmoid(beta r_w) + sigmoid(beta r_l).

    Equation 7 of D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, plus 1.
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """APO-down, both down, rejected further: L = sigmoid(beta r_w) + 1 - sigmoid(beta (r_w - r_l)).

    Equation 8 of D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, plus 1.
    """
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


def discopop_loss(margin: Tensor, beta: float, tau: float) -> Tensor:
    """DiscoPOP, the log-ratio modulated loss that a language model wrote. With z = beta margin:

        L = (1 - m) (-log sigmoid(z)) + m exp(-z),  m = sigmoid(z / tau)

    Equation 5 of Lu et al. 2024, https://arxiv.org/abs/2406.08414. `tau` in (0, 1].
    """
    z = beta * margin
    # m exp(-z) in one exponential: apart, they are 0 and infinity for a margin far below zero.
    exponential = torch.exp(F.logsigmoid(z / tau) - z)
    return torch.sigmoid(-z / tau) * -F.logsigmoid(z) + exponential


def sft_loss(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """The negative log-likelihood of the chosen completion per token: L = -log pi(y_w|x) / |y_w|.

    The second term of Pang et al. 2024, https://arxiv.org/abs/2404.19733, and of MPO, Wang et al.
    2024, https://arxiv.org/abs/2411.10442. `logprobs` summed over the tokens, `[B]`, in nats;
    `lengths` in tokens, `[B]`.
    """
    return -logprobs / lengths


def divergence_score(log_ratio: Tensor, divergence: Divergence, alpha: float = 0.5) -> Tensor:
    """f'(u) of f-DPO for u = exp(log_ratio): what takes the place of r for another divergence.

        reverse_kl  log u             forward_kl  1 - 1/u
        js          log(2u / (1 + u)) alpha       (1 - u^-alpha) / alpha,  0 < alpha < 1

    Table 1 of Wang et al. 2023, https://arxiv.org/abs/2309.16240, each f taken such that f'(1) = 0.
    `alpha` leads from reverse KL (0) to forward KL (1). Exponents stop at 80, so that a
    log-ratio far below zero gives no infinity.
    """
    if divergence == "forward_kl":
        return -torch.expm1((-log_ratio).clamp(max=MAX_EXPONENT))
    if divergence == "js":
        return math.log(2) + F.logsigmoid(log_ratio)
    if divergence == "alpha":
        return -torch.expm1((-alpha * log_ratio).clamp(max=MAX_EXPONENT)) / alpha
    return log_ratio


def tail_weights(mask: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """LD-DPO: weight 1 for a completion's first `shared` tokens, `alpha` for the rest.

    `mask [N, T]` says which positions count; `shared [N]` is how many tokens both completions of
    the pair have. Liu et al. 2024, https://arxiv.org/abs/2409.06411. Returns `[N, T]`.
    """
    return torch.where(mask.cumsum(-1) > shared[:, None], alpha, 1.0)


def wpo_weights(logprobs: Tensor, collision: Tensor, mask: Tensor) -> Tensor:
    """WPO: how likely the policy is to write each completion, per token, against its own samples.

        w = exp(mean over tokens of log pi(y_t) - log sum_v pi(v)^2)

    where pi(y_t) / sum_v pi(v)^2 is 1 on average if y_t is drawn from pi. Zhou et al. 2024,
    https://arxiv.org/abs/2406.11827, with their "sampled alignment". `logprobs`, `collision` (the
    second term) and `mask` are `[N, T]`; returns `[N]`, without gradient.
    """
    aligned = torch.where(mask, logprobs - collision, 0.0).sum(-1)
    return (aligned / mask.sum(-1)).exp().detach()

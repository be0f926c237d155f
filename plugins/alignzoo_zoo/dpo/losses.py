"""The losses of direct preference optimisation, as pure functions on tensors.

Throughout, r = log pi(y|x) - log pi_ref(y|x) is the log-ratio of a completion, summed over its
tokens, in nats. `chosen` and `rejected` are the log-ratios of the two completions of each pair and
`margin` is their difference, all `[B]`. `beta` is the strength of the pull to the reference, > 0,
in 1/nats, and `smoothing` the probability that a label is wrong, in [0, 0.5). Each loss returns
one value per pair, `[B]`.
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
    """Compute EXO's loss for pairs, the reverse KL from the policy's preference to the labels.

        L = KL(q || p),  q = (sigmoid(beta margin), sigmoid(-beta margin)),  p = (1 - eps, eps)

    with eps = `smoothing` > 0. Equation 16 of Ji et al. 2024, https://arxiv.org/abs/2402.00856.
    """
    log_q, log_not_q = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    won = log_q.exp() * (log_q - math.log1p(-smoothing))
    return won + log_not_q.exp() * (log_not_q - math.log(smoothing))


def nca_pair_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute NCA's loss for pairs, which contrasts each reward with noise, not only the two.

        L = -log sigmoid(beta r_w) - 1/2 log sigmoid(-beta r_w) - 1/2 log sigmoid(-beta r_l)

    Chen et al. 2024, https://arxiv.org/abs/2402.05369.
    """
    noise = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
    return -F.logsigmoid(beta * chosen) - noise / 2


def robust_loss(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """Compute robust DPO's loss, unbiased if labels are flipped with probability `smoothing`.

        L = (-(1 - eps) log sigmoid(beta margin) + eps log sigmoid(-beta margin)) / (1 - 2 eps)

    with eps = `smoothing`. Ray Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409.
    """
    kept, flipped = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return (-(1 - smoothing) * kept + smoothing * flipped) / (1 - 2 * smoothing)


def bco_pair_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute BCO's loss for pairs, that of a classifier of single completions.

        L = -log sigmoid(beta r_w) - log sigmoid(-beta r_l)

    Jung et al. 2024, https://arxiv.org/abs/2404.04656, with a reward shift delta of zero.
    """
    return -F.logsigmoid(beta * chosen) - F.logsigmoid(-beta * rejected)


def sppo_hard_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute SPPO's loss with hard labels: L = (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2.

    Equation 4.7 of Wu et al. 2024, https://arxiv.org/abs/2405.00675, with eta = 1 / beta and the
    win probabilities 1 and 0.
    """
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


def sorted_margin(upper: Tensor, lower: Tensor) -> Tensor:
    """Return the i-th smallest of `upper` minus the i-th smallest of `lower`, for AOT; `[B]`.

    Under `sigmoid_loss` of it, one distribution of rewards is to dominate the other (first-order
    stochastic dominance); single pairs need not be in order. Melnyk et al. 2024,
    https://arxiv.org/abs/2406.05882. In the paired form, `upper` and `lower` are
    log p(y_w|x) - log p(y_l|x) under the policy and the reference; in the unpaired form they are
    `chosen` and `rejected`.
    """
    return upper.sort().values - lower.sort().values


def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute APO-zero's loss, which raises chosen and lowers rejected completions.

        L = 1 - sigmoid(beta r_w) + sigmoid(beta r_l)

    Equation 7 of D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, plus 1.
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute APO-down's loss, which lowers both completions, the rejected one further.

        L = sigmoid(beta r_w) + 1 - sigmoid(beta (r_w - r_l))

    Equation 8 of D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, plus 1.
    """
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


def discopop_loss(margin: Tensor, beta: float, tau: float) -> Tensor:
    """Compute DiscoPOP, the log-ratio modulated loss that a language model wrote.

        L = (1 - m) (-log sigmoid(z)) + m exp(-z),  z = beta margin,  m = sigmoid(z / tau)

    Equation 5 of Lu et al. 2024, https://arxiv.org/abs/2406.08414. `tau` is in (0, 1].
    """
    z = beta * margin
    # m exp(-z) as one exponential: computed apart, m is 0 and exp(-z) infinite far below zero.
    exponential = torch.exp(F.logsigmoid(z / tau) - z)
    return torch.sigmoid(-z / tau) * -F.logsigmoid(z) + exponential


def sft_loss(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """Compute the negative log-likelihood of the chosen completion per token.

        L = -log pi(y_w|x) / |y_w|

    The second term of Pang et al. 2024, https://arxiv.org/abs/2404.19733, and of MPO, Wang et al.
    2024, https://arxiv.org/abs/2411.10442.

    Args:
        logprobs: log pi(y_w|x), summed over tokens, in nats; `[B]`.
        lengths: tokens of the chosen completion; `[B]`.
    """
    return -logprobs / lengths


def divergence_score(log_ratio: Tensor, divergence: Divergence, alpha: float = 0.5) -> Tensor:
    """Compute f'(u) of f-DPO for u = exp(log_ratio), which replaces r for another divergence.

        reverse_kl  log u             forward_kl  1 - 1/u
        js          log(2u / (1 + u)) alpha       (1 - u^-alpha) / alpha,  0 < alpha < 1

    Table 1 of Wang et al. 2023, https://arxiv.org/abs/2309.16240, with each f chosen such that
    f'(1) = 0. `alpha` interpolates from reverse KL (0) to forward KL (1). Exponents are clamped at
    80, so a log-ratio far below zero stays finite. Returns the shape of `log_ratio`.
    """
    if divergence == "forward_kl":
        return -torch.expm1((-log_ratio).clamp(max=MAX_EXPONENT))
    if divergence == "js":
        return math.log(2) + F.logsigmoid(log_ratio)
    if divergence == "alpha":
        return -torch.expm1((-alpha * log_ratio).clamp(max=MAX_EXPONENT)) / alpha
    return log_ratio


def tail_weights(mask: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """Return LD-DPO's weights of tokens: 1 for the first `shared` ones, `alpha` for the rest.

    Liu et al. 2024, https://arxiv.org/abs/2409.06411.

    Args:
        mask: the positions that count, bool; `[N, T]`.
        shared: length of the shorter completion of the pair, in tokens; `[N]`.
        alpha: weight of the tokens beyond it, in [0, 1].

    Returns:
        The weights, `[N, T]`.
    """
    return torch.where(mask.cumsum(-1) > shared[:, None], alpha, 1.0)


def wpo_weights(logprobs: Tensor, log_sum_p2: Tensor, mask: Tensor) -> Tensor:
    """Compute WPO's weights of completions: their probability per token under the policy.

        w = exp(mean over tokens of log pi(y_t) - log sum_v pi(v)^2)

    The second term normalises: pi(y_t) / sum_v pi(v)^2 is 1 on average if y_t is sampled from pi.
    Zhou et al. 2024, https://arxiv.org/abs/2406.11827, with their "sampled alignment".

    Args:
        logprobs: log pi(y_t), in nats; `[N, T]`.
        log_sum_p2: log sum_v pi(v)^2 at each position; `[N, T]`.
        mask: the positions that count, bool; `[N, T]`.

    Returns:
        The weights, `[N]`, without gradient.
    """
    aligned = torch.where(mask, logprobs - log_sum_p2, 0.0).sum(-1)
    return (aligned / mask.sum(-1)).exp().detach()

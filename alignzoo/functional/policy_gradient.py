"""What algorithms that learn from their own completions share: pure functions on tensors.

Shapes: N completions of up to T tokens; with groups, B prompts times G completions. Log-probs and
their differences are in nats. A reward that does not apply is NaN and has no part in any mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from alignzoo.batch import Batch

Estimator = Literal["k1", "k2", "k3"]
REWARD = "reward/"  # prefix of the columns that hold single rewards
MAX_LOG_RATIO = 20.0  # e^20 is 5e8: far past any use, and far from the end of float32


def importance_ratio(log_ratio: Tensor) -> Tensor:
    """pi / pi_old from log pi - log pi_old, any shape; finite, and without gradient past e^+-20."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def importance_weights(policy: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Truncated importance sampling: w = min(pi / pi_sampler, cap) of each token, `[N, T]`.

    What tokens of another distribution than the policy's weigh in its gradient: Yao et al. 2025,
    https://fengyao.notion.site/off-policy-rl. 1 where the sampler does not know (NaN).

    Args:
        policy, sampler: log pi and log pi_sampler of the tokens, in nats, `[N, T]`.
    """
    return importance_ratio((policy - sampler).nan_to_num(0.0)).clamp(max=cap)


def per_token(advantages: Tensor) -> Tensor:
    """Credit per completion, `[N]`, as a column `[N, 1]`; credit per token, `[N, T]`, as it is."""
    return advantages if advantages.dim() == 2 else advantages[:, None]


def clipped_surrogate(ratio: Tensor, advantages: Tensor, lower: float, upper: float) -> Tensor:
    """PPO's clipped loss: L = -min(r A, clip(r, lower, upper) A).

    Equation 7 of Schulman et al. 2017, https://arxiv.org/abs/1707.06347. No gradient where the
    ratio r is above `upper` and A > 0, or below `lower` and A < 0. The shapes broadcast.
    """
    return -torch.minimum(ratio * advantages, ratio.clamp(lower, upper) * advantages)


def clip_metrics(
    ratio: Tensor, advantages: Tensor, lower: float, upper: float
) -> dict[str, Tensor]:
    """Where `clipped_surrogate` has no gradient, by side, in the shape of `ratio`."""
    low = (ratio < lower) & (advantages < 0)
    high = (ratio > upper) & (advantages > 0)
    return {
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low | high,
    }


def kl_estimate(policy: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """An estimate of KL(pi || pi_ref) per token from the log-probs of tokens drawn from pi.

        k1 = -log r      k2 = (log r)^2 / 2      k3 = r - 1 - log r,      r = pi_ref / pi

    Schulman 2020, http://joschu.net/blog/kl-approx.html. The means of k1 and k3 are the KL; k1 may
    be negative, k3 is not. The mean of k2 is off by the third order in log r, but the mean of its
    gradient is the gradient of the KL, while that of k1's is zero and that of k3's is the gradient
    of KL(pi_ref || pi).

    Args:
        policy, reference: log pi and log pi_ref of each token; one shape, returned.
    """
    log_r = reference - policy
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return log_r**2 / 2
    return importance_ratio(log_r) - 1 - log_r


def spread(x: Tensor) -> Tensor:
    """The standard deviation over the last dimension, `[..., n] -> [...]`, with Bessel's n - 1.

    NaN is left out; of fewer than two values it is 0.
    """
    squares = ((x - x.nanmean(-1, keepdim=True)) ** 2).nansum(-1)
    return (squares / ((~x.isnan()).sum(-1) - 1).clamp(min=1)).sqrt()


def whiten(x: Tensor, everyone: Tensor, shift_mean: bool = True) -> Tensor:
    """x with the mean and the standard deviation of `everyone` taken out, in the shape of x.

        (x - mean) / std, plus the mean again unless `shift_mean`

    The variance has n in its denominator, and is at least 1e-8, so that ties become 0. NaN has no
    part in either.

    Args:
        everyone: the values that x is one of, one-dimensional.
    """
    known = everyone[~everyone.isnan()].double()
    if not known.numel():
        return x
    mean, scale = known.mean(), known.var(correction=0).clamp(min=1e-8).rsqrt()
    return ((x.double() - mean) * scale + (0.0 if shift_mean else mean)).to(x.dtype)


def rewards_apart(batch: Batch) -> dict[str, Tensor]:
    """The rewards of a batch by name, `[N]` each, before they are weighed; NaN where one does not
    apply."""
    return {
        name.removeprefix(REWARD): scores
        for name, scores in sorted(batch.columns.items())
        if name.startswith(REWARD)
    }

"""Functions shared by algorithms that train on their own samples: pure, on tensors.

Shapes: N completions of up to T tokens; with groups, B prompts times G completions. Log-probs and
their differences are in nats. A reward that does not apply is NaN and has no part in any mean.
Functions of two tensors raise `ValueError` rather than broadcast `[N]` against `[N, T]`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alignzoo.batch import Batch

Estimator = Literal["k1", "k2", "k3"]
ImportanceMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
REWARD_PREFIX = "reward/"  # of the columns that hold single rewards
MAX_LOG_RATIO = 20.0  # e^20 is 5e8: far past any use, and far from the end of float32


def importance_ratio(log_ratio: Tensor) -> Tensor:
    """Compute pi / pi_old from log pi - log pi_old, in any shape.

    The ratio is finite; past e^+-20 it has no gradient.
    """
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def importance_weights(
    policy: Tensor,
    sampler: Tensor,
    cap: float,
    mode: ImportanceMode = "token_truncate",
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the weights of tokens drawn from another distribution than the policy's, `[N, T]`.

        r = pi / pi_sampler of the token, or the product over its completion (`sequence_*`)
        w = min(r, cap) (`*_truncate`), or r if r <= cap, else 0 (`*_mask`)

    The names are TRL's. `token_truncate` is the truncated importance sampling (TIS) of Yao et al.
    2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training",
    https://fengyao.notion.site/off-policy-rl. The product makes the gradient of REINFORCE unbiased
    up to the cap, with more variance; that, and masked importance sampling (MIS), which leaves out
    what the policy finds far likelier than the sampler did, are from Liu et al. 2025, "When Speed
    Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch",
    https://yingru.notion.site/When-Speed-Kills-Stability-Demystifying-RL-Collapse-from-the-Training-Inference-Mismatch-271211a558b7808d8b12d403fd15edda.

    Args:
        policy, sampler: log pi and log pi_sampler of the tokens, in nats, `[N, T]`. A token whose
            log-prob the sampler does not give (NaN) has r = 1.
        mask: tokens that count in a product, `[N, T]` (bool) [default: all].
    """
    _check_shapes(policy, sampler)
    log_ratio = (policy - sampler).nan_to_num(0.0)
    if mode in ("sequence_truncate", "sequence_mask"):
        counted = log_ratio if mask is None else log_ratio.masked_fill(~mask, 0.0)
        log_ratio = counted.sum(-1, keepdim=True).expand_as(log_ratio)
    ratio = importance_ratio(log_ratio)
    if mode in ("token_mask", "sequence_mask"):
        return ratio.masked_fill(ratio > cap, 0.0)
    return ratio.clamp(max=cap)


def per_token(advantages: Tensor) -> Tensor:
    """Return advantages per token, `[N, T]`, as they are, and per completion, `[N]`, as `[N, 1]`.

    Either form broadcasts against `[N, T]` as it should.
    """
    return advantages if advantages.dim() == 2 else advantages[:, None]


def clipped_surrogate(ratio: Tensor, advantages: Tensor, lower: float, upper: float) -> Tensor:
    """Compute PPO's clipped loss: L = -min(r A, clip(r, lower, upper) A).

    Equation 7 of Schulman et al. 2017, https://arxiv.org/abs/1707.06347. There is no gradient if
    the ratio r is above `upper` and A > 0, or below `lower` and A < 0.

    Args:
        ratio, advantages: of one shape, or `[N, T]` and `[N, 1]` in either order.
    """
    _check_shapes(ratio, advantages)
    return -torch.minimum(ratio * advantages, ratio.clamp(lower, upper) * advantages)


def clip_metrics(
    ratio: Tensor, advantages: Tensor, lower: float, upper: float
) -> dict[str, Tensor]:
    """Mark where `clipped_surrogate` has no gradient, by side, in the shape of its loss."""
    _check_shapes(ratio, advantages)
    low = (ratio < lower) & (advantages < 0)
    high = (ratio > upper) & (advantages > 0)
    return {
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low | high,
    }


def kl_estimate(policy: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """Estimate KL(pi || pi_ref) per token from the log-probs of tokens drawn from pi.

        k1 = -log r      k2 = (log r)^2 / 2      k3 = r - 1 - log r,      r = pi_ref / pi

    Schulman 2020, http://joschu.net/blog/kl-approx.html. The means of k1 and k3 are the KL; k1 may
    be negative, k3 is not. The mean of k2 is off by the third order in log r, but the mean of its
    gradient is the gradient of the KL, while that of k1's is zero and that of k3's is the gradient
    of KL(pi_ref || pi).

    Args:
        policy, reference: log pi and log pi_ref of each token; one shape, returned.
    """
    _check_shapes(policy, reference)
    log_r = reference - policy
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return log_r**2 / 2
    return importance_ratio(log_r) - 1 - log_r


def nanstd(x: Tensor) -> Tensor:
    """Compute the standard deviation over the last dimension, `[..., n] -> [...]`.

    It has Bessel's n - 1 and leaves NaN out; of fewer than two values it is 0.
    """
    squares = ((x - x.nanmean(-1, keepdim=True)) ** 2).nansum(-1)
    return (squares / ((~x.isnan()).sum(-1) - 1).clamp(min=1)).sqrt()


def whiten(x: Tensor, population: Tensor, shift_mean: bool = True) -> Tensor:
    """Standardise x by the mean and the standard deviation of `population`, in the shape of x.

        (x - mean) / std, plus the mean again unless `shift_mean`

    The variance has n in its denominator, and is at least 1e-8, so that ties become 0. NaN has no
    part in either.

    Args:
        population: all values, of all processes, that x is a part of, `[n]`.
    """
    if population.dim() != 1:
        raise ValueError(f"the population is [n], not {list(population.shape)}")
    known = population[~population.isnan()].double()
    if not known.numel():
        return x
    mean, scale = known.mean(), known.var(correction=0).clamp(min=1e-8).rsqrt()
    return ((x.double() - mean) * scale + (0.0 if shift_mean else mean)).to(x.dtype)


def rewards_apart(batch: Batch) -> dict[str, Tensor]:
    """Return the rewards of a batch by name, `[N]` each, before weighting.

    NaN means that a reward does not apply.
    """
    return {
        name.removeprefix(REWARD_PREFIX): scores
        for name, scores in sorted(batch.columns.items())
        if name.startswith(REWARD_PREFIX)
    }


def _check_shapes(x: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless the shapes are equal, or `[N, T]` and `[N, 1]`."""
    columns = x.dim() == y.dim() == 2 and len(x) == len(y) and 1 in (x.shape[1], y.shape[1])
    if x.shape != y.shape and not columns:
        raise ValueError(
            f"shapes {list(x.shape)} and {list(y.shape)}: they are equal, or [N, T] and [N, 1]"
        )

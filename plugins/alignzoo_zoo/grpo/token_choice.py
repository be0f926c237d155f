"""The choice of tokens by their entropy or by their covariance, among all tokens of a round.

`values` and `mask` are `[N, T]` and belong to this process; `population [n]` are the values of the
tokens in the masks of all processes. A choice is bool, `[N, T]`, and False outside of the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alignzoo import Batch, Run
from alignzoo.functional import per_token

LOW, HIGH = 1.0, 5.0  # bounds of the covariances from which Clip-Cov chooses, as its authors set


def choose_largest(values: Tensor, mask: Tensor, population: Tensor, count: int) -> Tensor:
    """Choose the tokens with the `count` largest values, and all that tie with the last of them."""
    if not 0 < count <= len(population):
        return torch.zeros_like(mask)
    threshold = population.kthvalue(len(population) - count + 1).values
    return mask & (values.to(population.dtype) >= threshold)


def choose_high_entropy(
    entropy: Tensor, mask: Tensor, population: Tensor, fraction: float
) -> Tensor:
    """Choose the `fraction` of tokens with the highest entropy: H_t >= the (1 - fraction) quantile.

    Wang et al. 2025, "Beyond the 80/20 Rule", https://arxiv.org/abs/2506.01939.
    """
    # The number of tokens below the quantile; 1 - 0.99 is slightly more than 0.01.
    lower = math.ceil(round((1 - fraction) * (len(population) - 1), 6))
    return choose_largest(entropy, mask, population, len(population) - lower)


def compute_covariances(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, gather: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Compute each token's part in the covariance of log-prob and advantage, `[N, T]`.

        c_t = (log pi(y_t) - mean of log pi) (A_t - mean of A)

    Means are over all tokens of the round. The mean of c, the covariance, is to first order what a
    step of policy gradient lowers the entropy by: Cui et al. 2025,
    https://arxiv.org/abs/2505.22617.

    Args:
        logprobs: log pi(y_t|x, y_<t) of the policy that sampled, in nats, `[N, T]`.
        advantages: A, `[N, T]`.
        gather: `run.gather_masked`. All processes call this function.
    """
    centred = [
        (x.double() - gather(x, mask).double().mean()).to(x.dtype) for x in (logprobs, advantages)
    ]
    return torch.where(mask, centred[0] * centred[1], 0.0)


def choose_for_kl_cov(
    covariances: Tensor, mask: Tensor, population: Tensor, fraction: float
) -> Tensor:
    """Choose the `fraction` of tokens with the largest positive covariances; one at least."""
    largest = choose_largest(covariances, mask, population, count_of(population, fraction))
    return largest & (covariances > 0)


def choose_for_clip_cov(run: Run, covariances: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Choose a `fraction` of all tokens at random, one at least, from covariances in (1, 5).

    A seed of the round and the process decides. All processes call it.
    """
    seed = run.seed_for("clip-cov", run.round, run.world.rank)
    drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed))
    candidates = mask & (covariances > LOW) & (covariances < HIGH)
    lots = torch.where(candidates, drawn, -1.0)
    population = run.gather_masked(lots, mask)
    return choose_largest(lots, mask, population, count_of(population, fraction)) & candidates


def count_of(population: Tensor, fraction: float) -> int:
    """Return how many tokens a fraction of a population is, rounded down, but one at least."""
    return max(int(fraction * len(population)), 1)


def choose_by_covariance(
    run: Run, batch: Batch, advantages: Tensor, mask: Tensor, method: str, fraction: float
) -> Tensor:
    """Choose the tokens that the loss `method` ("clip_cov" or "kl_cov") treats apart, and log them.

    `advantages` are `[N]` or `[N, T]`. All processes call it.
    """
    per_position = per_token(advantages).expand(mask.shape)
    covariances = compute_covariances(batch["logprobs"], per_position, mask, run.gather_masked)
    population = run.gather_masked(covariances, mask)
    chosen = (
        choose_for_clip_cov(run, covariances, mask, fraction)
        if method == "clip_cov"
        else choose_for_kl_cov(covariances, mask, population, fraction)
    )
    run.log_mean({"cov/mean": covariances[mask], "cov/chosen": chosen[mask]})
    return chosen

"""The Lagrange multiplier of a constraint on the mean cost, as pure functions."""

from __future__ import annotations

import math

from torch import Tensor


def constrained_rewards(rewards: Tensor, costs: Tensor, multiplier: float) -> Tensor:
    """Return the rewards of the unconstrained problem, r' = (r - lambda c) / (1 + lambda).

    The divisor keeps their scale. Advantages are linear in rewards, so these give the combined
    advantage of Dai et al. 2023, https://arxiv.org/abs/2310.12773.

    Args:
        rewards, costs: r and c of each completion, `[N]`.
        multiplier: lambda, > 0, in reward per cost.
    """
    return (rewards - multiplier * costs) / (1 + multiplier)


def updated_multiplier(multiplier: float, excess: float, rate: float, largest: float) -> float:
    """Return lambda after a step of gradient ascent on its logarithm, at most `largest`.

        ln lambda' = ln lambda + rate lambda J,    J = mean cost - limit

    so that lambda stays above 0. Dai et al. 2023.

    Args:
        excess: J, > 0 if the constraint is violated.
    """
    log_multiplier = math.log(multiplier) + rate * multiplier * excess
    return math.exp(min(log_multiplier, math.log(largest)))

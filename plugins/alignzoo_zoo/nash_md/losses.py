"""Nash-MD's loss and its preferences, as pure functions on tensors of B prompts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Preference = Literal["sigmoid", "hard"]


def preference_probability(rewards: Tensor, others: Tensor, kind: Preference) -> Tensor:
    """Compute P(y is preferred to y') from the rewards of both, `[B]`.

    sigmoid   sigmoid(r - r'), the Bradley-Terry model
    hard      1 if r > r', 0 if r < r', 1/2 if they are equal

    NaN if either reward is NaN, that is, does not apply.
    """
    difference = rewards - others
    if kind == "sigmoid":
        return torch.sigmoid(difference)
    # The sign of NaN is 0 in torch.
    return ((difference.sign() + 1) / 2).masked_fill(difference.isnan(), torch.nan)


def nash_md_loss(policy: Tensor, reference: Tensor, centred: Tensor, beta: float) -> Tensor:
    """Compute Nash-MD-PG's loss, `[B]`: REINFORCE on the preference minus a KL penalty.

        L = -(P(y > y'|x) - 1/2 - beta (log pi(y|x) - log pi_ref(y|x))) log pi(y|x)

    with no gradient through the parentheses. Munos et al. 2023, https://arxiv.org/abs/2312.00886,
    whose tau is `beta` and whose mu is pi_ref. The expected gradient is minus that of
    P(pi > pi') - beta KL(pi || pi_ref) with pi' fixed.

    Args:
        policy, reference: log pi(y|x) and log pi_ref(y|x), `[B]`, y sampled from pi, in nats.
        centred: P(y > y'|x) - 1/2, `[B]`, y' sampled from the mixture.
    """
    return -(centred - beta * (policy - reference)).detach() * policy

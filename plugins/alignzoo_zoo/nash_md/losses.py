"""What is made of a fresh pair of completions, as pure functions on tensors.

B prompts. r = log pi(y|x) - log pi_ref(y|x) is a completion's log-ratio, summed over its tokens, in
nats; `margin` is that of the preferred completion less that of the other, `[B]`, and `beta` > 0 the
strength of the pull to the reference, in 1/nats. A loss is one value per pair, `[B]`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Preference = Literal["sigmoid", "hard"]


def preference_probability(rewards: Tensor, others: Tensor, kind: Preference) -> Tensor:
    """P(y is preferred to y') from the rewards of both, `[B]`; NaN where one does not apply.

    sigmoid   sigmoid(r - r'), Bradley and Terry's model
    hard      1 if r > r', 0 if r < r', 1/2 if they are equal
    """
    difference = rewards - others
    if kind == "sigmoid":
        return torch.sigmoid(difference)
    # The sign of NaN is 0 in torch.
    return ((difference.sign() + 1) / 2).masked_fill(difference.isnan(), torch.nan)


def nash_md_loss(policy: Tensor, reference: Tensor, centred: Tensor, beta: float) -> Tensor:
    """Nash-MD-PG: REINFORCE with a preference for a reward, and a price on the KL.

        L = -(P(y > y'|x) - 1/2 - beta (log pi(y|x) - log pi_ref(y|x))) log pi(y|x)

    with no gradient through the bracket. Munos et al. 2023, https://arxiv.org/abs/2312.00886, whose
    tau is `beta` and whose mu is pi_ref: the mean of the gradient is minus that of
    P(pi > pi') - beta KL(pi || pi_ref), pi' held.

    Args:
        policy, reference: log pi(y|x) and log pi_ref(y|x), `[B]`, y drawn from pi.
        centred: P(y > y'|x) - 1/2; y' drawn from the mixture.
    """
    return -(centred - beta * (policy - reference)).detach() * policy

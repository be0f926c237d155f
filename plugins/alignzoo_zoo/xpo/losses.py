"""XPO's exploration bonus, as a pure function on tensors."""

from __future__ import annotations

from torch import Tensor


def exploration_bonus(reference_sampled: Tensor, alpha: float) -> Tensor:
    """Compute the term that XPO adds to DPO's loss, alpha log pi(y'|x), `[B]`.

    y' was sampled from the reference. Algorithm 1 of Xie et al. 2024,
    https://arxiv.org/abs/2405.21046. Lowering the probability of what the reference writes raises
    that of everything else, which is exploration.

    Args:
        reference_sampled: log pi(y'|x) under the policy, `[B]`, in nats.
    """
    return alpha * reference_sampled

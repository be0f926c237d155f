"""XPO's optimism, as a pure function on tensors."""

from __future__ import annotations

from torch import Tensor


def optimism(reference_drawn: Tensor, alpha: float) -> Tensor:
    """XPO's term beside DPO's loss: alpha log pi(y'|x), where y' was drawn from the reference.

    Algorithm 1 of Xie et al. 2024, https://arxiv.org/abs/2405.21046. Less probability for what the
    reference writes is more for what it does not: exploration.

    Args:
        reference_drawn: log pi(y'|x) under the policy, `[B]`, in nats.
    """
    return alpha * reference_drawn

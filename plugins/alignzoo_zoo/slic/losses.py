"""The loss of sequence likelihood calibration."""

from __future__ import annotations

from torch import Tensor


def slic_loss(chosen: Tensor, rejected: Tensor, delta: float, nll_weight: float) -> Tensor:
    """Compute SLiC-HF's loss: a hinge on the log-likelihoods plus that of the chosen side.

        L = max(0, delta - log pi(y_w|x) + log pi(y_l|x)) - lambda log pi(y_ref|x)

    with the chosen side as y_ref. Zhao et al. 2023, https://arxiv.org/abs/2305.10425.

    Args:
        chosen, rejected: log pi of both sides, summed over tokens, in nats; `[B]`.
        delta: the margin, > 0, in nats.
        nll_weight: lambda, >= 0.

    Returns:
        One loss per pair, `[B]`.
    """
    return (delta - chosen + rejected).relu() - nll_weight * chosen

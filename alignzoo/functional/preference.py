"""Losses on pairs: pure functions on tensors.

r = log pi(y|x) - log pi_ref(y|x) is a completion's log-ratio to a reference, summed over its
tokens, in nats; `margin` is that of the preferred completion minus that of the other, `[B]`.
`beta` is the strength of the pull to the reference, > 0, in 1/nats. A loss is one value per pair,
`[B]`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(margin: Tensor, beta: float, smoothing: float | Tensor = 0.0) -> Tensor:
    """Compute DPO's loss, the negative log-likelihood of the preference under Bradley-Terry.

        L = -(1 - smoothing) log sigmoid(beta margin) - smoothing log sigmoid(-beta margin)

    Equation 7 of Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; with smoothing, the
    probability in [0, 0.5) that a label is wrong, "conservative DPO" of Mitchell 2023,
    https://ericmitchell.ai/cdpo.pdf. ln 2 at margin 0.

    A soft label, P(the first is better) = p, is smoothing 1 - p, in [0, 1], of each pair, `[B]`.
    The slope is then dL/dmargin = beta (sigmoid(beta margin) - p): 0 if the policy is as sure as
    the label, beta margin = log(p / (1 - p)). Raise `ValueError` if its shape is not the margin's.
    """
    if isinstance(smoothing, Tensor) and smoothing.dim() and smoothing.shape != margin.shape:
        raise ValueError(
            f"smoothing is a number or [B], {list(margin.shape)}, not {list(smoothing.shape)}"
        )
    return -(1 - smoothing) * F.logsigmoid(beta * margin) - smoothing * F.logsigmoid(-beta * margin)


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """Compute SLiC's hinge loss on the log-ratios: L = max(0, 1 - beta margin).

    Zhao et al. 2023, https://arxiv.org/abs/2305.10425, normalised by the reference as in equation
    "hinge-norm" of Liu et al. 2023 (RSO), https://arxiv.org/abs/2309.06657.
    """
    return torch.relu(1 - beta * margin)


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """Compute IPO's loss, L = (margin - 1 / (2 beta))^2, which pulls the margin to a target.

    Equation 17 of Azar et al. 2023, https://arxiv.org/abs/2310.12036, whose tau is `beta`.
    """
    return (margin - 1 / (2 * beta)) ** 2


def best_and_worst(rewards: Tensor) -> Tensor:
    """Return +1 for the best completion of each prompt, -1 for its worst, and 0 for the others.

    With G = 2 it is the pair of Guo et al. 2024, https://arxiv.org/abs/2402.04792; with more, the
    widest one. The first of equals is taken; a prompt whose rewards are all equal has no pair.

    Args:
        rewards: `[B, G]`, in any unit; a NaN is neither best nor worst.
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards are [B, G], not {list(rewards.shape)}")
    high, best = rewards.nan_to_num(nan=-torch.inf).max(-1, keepdim=True)
    low, worst = rewards.nan_to_num(nan=torch.inf).min(-1, keepdim=True)
    signs = torch.zeros_like(rewards).scatter(-1, best, 1.0).scatter(-1, worst, -1.0)
    return torch.where(high > low, signs, 0.0)

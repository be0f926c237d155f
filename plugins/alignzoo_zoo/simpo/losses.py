"""The loss of simple preference optimisation and the reward shapes of AlphaPO."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_EXPONENT = 80.0  # exp(88) is the end of float32


def shaped_reward(logp: Tensor, beta: float, alpha: float) -> Tensor:
    """Compute the reward of a completion from its mean log-prob.

        r = beta log P                    alpha = 0: SimPO
        r = beta (1 - P^-alpha) / alpha   otherwise: AlphaPO, with SimPO as its limit

    where log P(y|x) is the mean log-prob per token. Equation 4 of Meng et al. 2024,
    https://arxiv.org/abs/2405.14734; Gupta et al. 2025, https://arxiv.org/abs/2501.03884.

    Args:
        logp: log P, in nats per token, <= 0; any shape.
        beta: scale of the reward, > 0.
        alpha: its shape; above 0, unlikely completions are penalised more.

    Returns:
        The rewards, in the shape of `logp`.
    """
    if alpha == 0:
        return beta * logp
    return -beta * torch.expm1((-alpha * logp).clamp(max=MAX_EXPONENT)) / alpha


def margin_loss(chosen: Tensor, rejected: Tensor, gamma: float) -> Tensor:
    """Compute SimPO's loss: Bradley-Terry with a target margin.

        L = -log sigmoid(r_w - r_l - gamma)

    Equation 6 of Meng et al. 2024.

    Args:
        chosen, rejected: rewards r_w and r_l; `[B]`.
        gamma: the margin, in units of reward.

    Returns:
        One loss per pair, `[B]`; ln 2 if the margin is met exactly.
    """
    return -F.logsigmoid(chosen - rejected - gamma)

"""The odds-ratio loss, as pure functions on tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CERTAIN = -1e-6  # log P is clamped here, so odds are at most a million to one


def log_odds(logp: Tensor) -> Tensor:
    """Compute log(P / (1 - P)) from log P <= 0, in nats, without cancellation near 0.

    Equation 4 of Hong et al. 2024. log P is clamped at -1e-6, because the odds of P = 1 are
    infinite. Returns the shape of `logp`.
    """
    logp = logp.clamp(max=CERTAIN)
    # log(1 - e^x), by expm1 if e^x is near 1 and by log1p if it is near 0.
    near_one = torch.log(-torch.expm1(logp))
    near_zero = torch.log1p(-torch.exp(logp))
    return logp - torch.where(logp > -math.log(2), near_one, near_zero)


def orpo_loss(chosen: Tensor, rejected: Tensor, odds_weight: float) -> Tensor:
    """Compute ORPO's loss: the likelihood of the chosen side and the odds ratio of the two sides.

        L = -log P(y_w|x) - lambda log sigmoid(log odds(y_w|x) - log odds(y_l|x))

    where log P(y|x) is the mean log-prob per token and odds = P / (1 - P). Equations 6 and 7 of
    Hong et al. 2024, https://arxiv.org/abs/2403.07691.

    Args:
        chosen, rejected: log P of both sides, in nats per token, <= 0; `[B]`.
        odds_weight: lambda, >= 0.

    Returns:
        One loss per pair, `[B]`; -log P(y_w|x) + lambda ln 2 if both odds are equal.
    """
    return -chosen - odds_weight * F.logsigmoid(log_odds(chosen) - log_odds(rejected))

"""The loss of triple preference optimisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def tpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    gold_mean: Tensor,
    *,
    beta: float,
    gamma: float,
    nll_weight: float,
) -> Tensor:
    """Compute TPO's loss: a preference between two completions, and the likelihood of a third.

        L = -log sigmoid(beta (s_w - s_l) - gamma) - alpha log pi(y_gold|x) / |y_gold|

    TPO has s = log pi(y|x) and gamma = 0, TPO-L s = log pi(y|x) / |y|. With y_gold = y_w, TPO is
    CPO. Saeidi et al. 2024, https://arxiv.org/abs/2405.16681, with the likelihood per token, as in
    their code.

    Args:
        chosen, rejected: s_w and s_l, in nats, or in nats per token; `[B]`.
        gold_mean: log pi(y_gold|x) / |y_gold|, in nats per token; `[B]`.
        beta: sharpness of the preference, > 0.
        gamma: target margin between the two, in units of beta s, >= 0.
        nll_weight: alpha, >= 0.

    Returns:
        One loss per triple, `[B]`.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma) - nll_weight * gold_mean

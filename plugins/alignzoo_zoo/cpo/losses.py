"""The loss of contrastive preference optimisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Compute DPO's loss with a uniform reference, whose log-probs cancel.

        L = -log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x)))

    Xu et al. 2024, https://arxiv.org/abs/2401.08417.

    Args:
        chosen, rejected: log pi of both sides, summed over tokens, in nats; `[B]`.
        beta: sharpness of the preference, > 0, in 1/nats.

    Returns:
        One loss per pair, `[B]`; ln 2 if both sides are equally likely.
    """
    return -F.logsigmoid(beta * (chosen - rejected))


def cpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_mean: Tensor, beta: float, nll_weight: float
) -> Tensor:
    """Compute CPO's loss: preference plus behaviour cloning of the chosen side.

        L = -log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x))) - lambda log pi(y_w|x) / |y_w|

    Xu et al. 2024, with the likelihood per token, as in their code.

    Args:
        chosen, rejected: log pi of both sides, summed over tokens, in nats; `[B]`.
        chosen_mean: log pi of the chosen side, in nats per token; `[B]`.
        beta: sharpness of the preference, > 0, in 1/nats.
        nll_weight: lambda, >= 0; 1 in the paper.

    Returns:
        One loss per pair, `[B]`.
    """
    return preference_loss(chosen, rejected, beta) - nll_weight * chosen_mean

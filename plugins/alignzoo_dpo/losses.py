"""The losses of direct preference optimisation, as pure functions on tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """DPO's loss: the negative log-likelihood of the preference under Bradley-Terry.

        L = -log sigmoid(beta * (chosen - rejected))

    where chosen = log pi(y_w|x) - log pi_ref(y_w|x), and rejected the same for y_l. Equation 7 of
    Rafailov et al. 2023, https://arxiv.org/abs/2305.18290.

    Args:
        chosen, rejected: log-ratios of policy to reference, summed over tokens, in nats; `[B]`.
        beta: strength of the pull to the reference, > 0, in 1/nats.

    Returns:
        One loss per pair, `[B]`; ln 2 where the two log-ratios are equal.
    """
    return -F.logsigmoid(beta * (chosen - rejected))

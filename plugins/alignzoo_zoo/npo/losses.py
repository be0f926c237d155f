"""The losses of unlearning, as pure functions on tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def npo_loss(log_ratio: Tensor, beta: float) -> Tensor:
    """Compute the loss of negative preference optimisation: DPO with a rejected side alone.

        L = -2/beta log sigmoid(-beta log pi(y|x) / pi_ref(y|x))

    Its gradient is that of log pi(y|x), gradient ascent on the negative log-likelihood, times
    2 pi^beta / (pi^beta + pi_ref^beta): 1 at the reference, and 0 once y is forgotten, which is why
    the model does not collapse. Zhang et al. 2024, https://arxiv.org/abs/2404.05868.

    Args:
        log_ratio: log pi(y|x) - log pi_ref(y|x), summed over tokens, in nats; `[N]`.
        beta: > 0, in 1/nats; towards 0 the gradient is that of gradient ascent.

    Returns:
        One loss per completion, `[N]`; 2 ln 2 / beta at the reference.
    """
    return -2 / beta * F.logsigmoid(-beta * log_ratio)


def simnpo_loss(mean_logprob: Tensor, beta: float, gamma: float) -> Tensor:
    """Compute SimNPO's loss: NPO without a reference, by the log-prob per token.

        L = -2/beta log sigmoid(-beta log pi(y|x) / |y| - gamma)

    Fan et al. 2024, https://arxiv.org/abs/2410.07163.

    Args:
        mean_logprob: log pi(y|x) / |y|, in nats per token, <= 0; `[N]`.
        beta: > 0, in tokens per nat.
        gamma: the margin of the reward by which y is to be unlikely, >= 0.

    Returns:
        One loss per completion, `[N]`.
    """
    return -2 / beta * F.logsigmoid(-beta * mean_logprob - gamma)

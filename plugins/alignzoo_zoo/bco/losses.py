"""The loss of binary classifier optimisation and its running reward shift."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bco_loss(log_ratio: Tensor, desirable: Tensor, delta: float, beta: float) -> Tensor:
    """Compute BCO's loss, the cross-entropy of a classifier on the shifted implicit reward.

        L = -log sigmoid(r - delta)       if the completion is desirable
        L = -log sigmoid(-(r - delta))    if it is not

    where r = beta (log pi(y|x) - log pi_ref(y|x)). Jung et al. 2024,
    https://arxiv.org/abs/2404.04656.

    Args:
        log_ratio: log-ratio of policy to reference, summed over tokens, in nats; `[N]`.
        desirable: the labels, bool; `[N]`.
        delta: the reward shift, in units of reward.
        beta: strength of the pull to the reference, > 0, in 1/nats.

    Returns:
        One loss per completion, `[N]`; ln 2 if r = delta.
    """
    shifted = beta * log_ratio - delta
    return -F.logsigmoid(torch.where(desirable, shifted, -shifted))


def running_delta(delta: float, chosen: float, rejected: float, decay: float) -> float:
    """Update the reward shift: decay delta + (1 - decay) (chosen + rejected) / 2.

    The paper's delta is the midpoint of the two expected rewards, regardless of how many
    completions each label has. This tracks it by an exponential moving average.

    Args:
        delta: the shift so far.
        chosen, rejected: mean rewards of the batch's desirable and undesirable completions.
        decay: weight of the shift so far, in [0, 1).
    """
    return decay * delta + (1 - decay) * (chosen + rejected) / 2

"""The loss of learning from soft labels, as a pure function on tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_label_loss(margin: Tensor, label: Tensor, beta: float) -> Tensor:
    """DPO's loss in expectation over who is preferred, a being so with probability p.

        L = -p log sigmoid(beta m) - (1 - p) log sigmoid(-beta m)

    m = log pi(a|x)/pi_ref(a|x) - log pi(b|x)/pi_ref(b|x). Its slope, dL/dm = beta (sigmoid(beta m)
    - p), is 0 where the policy is as sure as the judge: beta m = log(p / (1 - p)). At p = 1 it is
    equation 7 of Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; the label of a whole set
    being 1 - epsilon makes it cDPO.

    Args:
        margin: m, summed over tokens, in nats; `[B]`.
        label: p in [0, 1]; `[B]`.
        beta: strength of the pull to the reference, in 1/nats; > 0.

    Returns:
        One value per pair, `[B]`. ln 2 at margin 0.
    """
    z = beta * margin
    return -label * F.logsigmoid(z) - (1 - label) * F.logsigmoid(-z)

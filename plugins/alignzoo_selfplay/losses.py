"""The losses of self-play fine-tuning, as pure functions on tensors.

y is a demonstration and y' what the opponent wrote to the same prompt x. r = log pi(y|x) -
log pi_t(y|x) is a completion's log-ratio to the opponent pi_t, summed over its tokens, in nats;
`margin` is that of the demonstration less that of the opponent's completion, `[B]`. `beta` > 0 is
the strength of the pull to the opponent, in 1/nats. A loss is one value per pair, `[B]`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(margin: Tensor, beta: float) -> Tensor:
    """The logistic loss of telling the demonstration from the opponent's completion.

        L = log(1 + exp(-beta margin)) = -log sigmoid(beta margin)

    Chen et al. 2024, https://arxiv.org/abs/2401.01335, whose lambda is `beta`. It is DPO's, with
    the opponent for a reference. ln 2 at margin 0.
    """
    return -F.logsigmoid(beta * margin)


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """The hinge in its place, which asks for a margin and no more: L = max(0, 1 - beta margin).

    Of the authors' code, https://github.com/uclaml/SPIN.
    """
    return torch.relu(1 - beta * margin)

"""A linear layer from the trunk's hidden states to what reward is still to come: PPO's critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """v = w . h + b, in float32 whatever the trunk's precision; `weight [1, h]`, `bias [1]`.

    It begins at zero, so that the first advantages are the rewards' own: Huang et al. 2023, "The N
    Implementation Details of RLHF with PPO", policy training, 2.
    """

    def __init__(self, width: int, device: torch.device):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, states: Tensor) -> Tensor:
        """`[n, h] -> [n]`."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states.float(), self.weight, self.bias).squeeze(-1)

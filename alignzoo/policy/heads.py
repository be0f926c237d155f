"""A linear layer from the trunk's hidden states to a number: what makes a reward model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from alignzoo.errors import BadInput

FILE = "score_head.safetensors"


class ScoreHead(nn.Module):
    """s = w . h, in float32 whatever the trunk's precision; `weight [1, h]`, without a bias.

    A bias would be lost on preferences, which only ever see differences of scores. Where it was
    trained on the steps of solutions, `step_separator` is what stands between these; else None.
    """

    step_separator: str | None = None

    def __init__(self, width: int, seed: int, device: torch.device):
        super().__init__()
        # Normal with variance 1/(h + 1), so that scores begin of the order of 1: Stiennon et al.
        # 2020, https://arxiv.org/abs/2009.01325, appendix B.1.
        noise = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter((noise * (width + 1) ** -0.5).to(device))

    def forward(self, states: Tensor) -> Tensor:
        """`[n, h] -> [n]`."""
        with torch.autocast(states.device.type, enabled=False):
            return (states.float() @ self.weight.T).squeeze(-1)

    def save(self, folder: Path) -> None:
        steps = {} if self.step_separator is None else {"step_separator": self.step_separator}
        weight = self.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / FILE, metadata=steps or None)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            saved = file.get_tensor("weight") if "weight" in file.keys() else None  # noqa: SIM118
            steps = (file.metadata() or {}).get("step_separator")
        if saved is None or saved.shape != self.weight.shape:
            raise BadInput("not the score head of this model", where=str(path))
        self.weight.copy_(saved)
        self.step_separator = steps


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

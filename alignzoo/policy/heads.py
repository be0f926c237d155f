"""Heads that map hidden states to a number: scores of reward models, values of critics."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from alignzoo.errors import BadInput

SCORE_HEAD_FILE = "score_head.safetensors"
CLASSIFIER_HEAD = "score.weight"  # of transformers' models for sequence classification


class ScoreHead(nn.Module):
    """s = w . h, in float32 whatever the backbone's precision; `weight [1, h]`, without a bias.

    A bias has no effect on preferences, which depend on differences of scores alone. If the head
    was trained on the steps of solutions, `step_separator` is the text between them; else None.
    """

    step_separator: str | None = None

    def __init__(self, width: int, seed: int, device: torch.device):
        super().__init__()
        # Normal with variance 1/(h + 1), so that scores start at the order of 1: Stiennon et al.
        # 2020, https://arxiv.org/abs/2009.01325, appendix B.1.
        noise = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter((noise * (width + 1) ** -0.5).to(device))

    def forward(self, states: Tensor) -> Tensor:
        """Compute the scores `[n]` of `states [n, h]`."""
        with torch.autocast(states.device.type, enabled=False):
            return (states.float() @ self.weight.T).squeeze(-1)

    def save(self, folder: Path) -> None:
        """Write the head as `SCORE_HEAD_FILE` into a folder."""
        steps = {} if self.step_separator is None else {"step_separator": self.step_separator}
        weight = self.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / SCORE_HEAD_FILE, metadata=steps or None)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Read a head that `save` wrote, or a classifier's; BadInput if it has another shape."""
        with safe_open(path, framework="pt") as file:
            names = [n for n in ("weight", CLASSIFIER_HEAD) if n in file.keys()]  # noqa: SIM118
            saved = file.get_tensor(names[0]) if names else None
            steps = (file.metadata() or {}).get("step_separator")
        if saved is not None and saved.ndim == 2 and len(saved) > 1:
            raise BadInput(
                f"a classifier of {len(saved)} labels; a reward model has one", where=str(path)
            )
        if saved is None or saved.shape != self.weight.shape:
            raise BadInput("not the score head of this model", where=str(path))
        self.weight.copy_(saved)
        self.step_separator = steps


class ValueHead(nn.Module):
    """v = w . h + b, in float32 whatever the backbone's precision; `weight [1, h]`, `bias [1]`.

    It starts at zero, so the first advantages are the rewards themselves: Huang et al. 2023, "The N
    Implementation Details of RLHF with PPO", policy training, 2.
    """

    def __init__(self, width: int, device: torch.device):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, states: Tensor) -> Tensor:
        """Compute the values `[n]` of `states [n, h]`."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states.float(), self.weight, self.bias).squeeze(-1)


def is_classifier(architectures: object) -> bool:
    """Return True for the `architectures` of a config whose head maps sequences to labels."""
    names = architectures if isinstance(architectures, list) else []
    return any(str(name).endswith("ForSequenceClassification") for name in names)

"""The optimizer of a run: which weights decay, and its state as tensors by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Vectors that some models and adapters store as matrices: norms of each head (Cohere), biases of
# experts (GPT-OSS), time constants (Mamba, whose authors do not decay them), factors of IA3.
VECTORS = re.compile(r"norm|bias|A_log|ia3_l")


def make_optimizer(
    parameters: Sequence[tuple[str, nn.Parameter]], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW for parameters by name; see `decays` for the weight decay."""
    groups = [
        {"params": [p for n, p in parameters if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in parameters if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies: to matrices, not to norms, biases and other vectors.

    To decay a factor would pull it to 0, while it begins at 1 (a norm, IA3), or at the norm of a
    row (DoRA's magnitudes), and multiplies everything.
    """
    return parameter.ndim > 1 and not VECTORS.search(name)


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]
) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors by key and parameter name, `exp_avg/NAME`."""
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for parameter, name in names.items()
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[nn.Parameter, str]
) -> None:
    """Set the optimizer's state, in place: the inverse of `flatten_optimizer`."""
    parameters = {name: parameter for parameter, name in names.items()}
    for path, value in tensors.items():
        key, _, name = path.partition("/")
        parameter = parameters[name]
        # Adam's step counter is a scalar that stays on its device; moments go to the parameter's.
        moved = value if value.ndim == 0 and parameter.ndim > 0 else value.to(parameter.device)
        optimizer.state[parameter][key] = moved

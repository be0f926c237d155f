"""The optimizer of a run: which weights decay, and its state as tensors by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def make_optimizer(
    parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW, whose weight decay leaves out vectors: norms, biases, magnitudes.

    To decay a norm's weight would pull it to 0, while it begins at 1 and multiplies everything.
    """
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


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

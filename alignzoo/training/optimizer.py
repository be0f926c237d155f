"""The optimizer of a run: which weights decay, and its state as tensors and JSON by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy.sharding import WITHOUT_SHARD, is_split
from alignzoo.run.state import UnsavableValue, flatten, unflatten

# Vectors that some models and adapters store as matrices: norms of each head (Cohere), biases of
# experts (GPT-OSS), time constants (Mamba, whose authors do not decay them), factors of IA3.
VECTORS = re.compile(r"norm|bias|A_log|ia3_l")
# Optimizers that update each value by itself, so that a process can update its part of a weight.
ELEMENTWISE = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    learning_rate: float,
    weight_decay: float,
    **settings: Any,
) -> torch.optim.Optimizer:
    """Return AdamW for parameters by name, with more `settings` of it."""
    groups = decay_groups(parameters, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True, **settings)


def decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups of parameters for an optimizer: those that decay, and those that do not.

    See `decays`. A group without parameters is left out.
    """
    named = list(parameters)
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies: to matrices, not to norms, biases and other vectors.

    To decay a factor would pull it to 0, while it begins at 1 (a norm, IA3), or at the norm of a
    row (DoRA's magnitudes), and multiplies everything.
    """
    return parameter.ndim > 1 and not VECTORS.search(name)


def refuse_whole_weights(optimizer: torch.optim.Optimizer) -> None:
    """Raise `BadInput` for split weights if the optimizer is not known to update parts of them."""
    weights = (p for group in optimizer.param_groups for p in group["params"])
    if type(optimizer) not in ELEMENTWISE and any(map(is_split, weights)):
        known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        raise BadInput(
            f"option --shard: {type(optimizer).__name__} is not known to work on parts of weights",
            hint=f"use one of torch's {known}, or {WITHOUT_SHARD}",
        )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each group: `rate` times its `lr_scale`, which is 1 if it has none."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's state as tensors by key and parameter name, `exp_avg/NAME`, and JSON.

    The JSON has what is not a tensor, and the settings of each group. Raise `BadInput` for a value
    of a parameter's state that no checkpoint can hold.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for parameter, name in names.items():
        for key, value in optimizer.state[parameter].items():
            path = f"{key}/{name}"
            if isinstance(value, Tensor):
                tensors[path] = value
                continue
            try:
                values[path] = flatten(value, path, tensors)
            except UnsavableValue as error:
                raise BadInput(
                    f"the state of {type(optimizer).__name__} cannot be saved: {error}",
                    hint=error.hint,
                ) from None
    groups = [_flatten_group(i, group, tensors) for i, group in enumerate(optimizer.param_groups)]
    return tensors, {"values": values, "groups": groups}


def _flatten_group(
    index: int, group: Mapping[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Any]:
    found = {}
    for key, value in group.items():
        if key == "params":
            continue
        try:
            own = list(value) if isinstance(value, tuple) else value
            found[key] = flatten(own, f"group {index}/{key}", tensors)
        except UnsavableValue:  # a setting that is no number, such as a function, stays as it is
            continue
    return found


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    names: Mapping[nn.Parameter, str],
    others: Mapping[str, Any] | None = None,
) -> None:
    """Set the optimizer's state, in place: the inverse of `flatten_optimizer`.

    `others` is the JSON, None in an older checkpoint. Raise `RunFailed` for another number of
    groups.
    """
    parameters = {name: parameter for parameter, name in names.items()}
    for path, value in tensors.items():
        key, _, name = path.partition("/")
        if name in parameters:
            parameter = parameters[name]
            # Adam's step counter is a scalar that stays on its device; moments go to the
            # parameter's.
            moved = value if value.ndim == 0 and parameter.ndim > 0 else value.to(parameter.device)
            optimizer.state[parameter][key] = moved
    if others is None:
        return
    for path, value in others["values"].items():
        key, _, name = path.partition("/")
        parameter = parameters[name]
        optimizer.state[parameter][key] = unflatten(value, tensors, parameter.device)
    if len(others["groups"]) != len(optimizer.param_groups):
        raise RunFailed(
            f"the checkpoint has {len(others['groups'])} groups of parameters, the optimizer "
            f"{len(optimizer.param_groups)}"
        )
    for group, saved in zip(optimizer.param_groups, others["groups"], strict=True):
        for key, value in saved.items():
            restored = unflatten(value, tensors, group["params"][0].device)
            group[key] = tuple(restored) if isinstance(group.get(key), tuple) else restored

"""Muon, by torch, for the matrices of hidden layers, and AdamW for the other parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch import nn

from alignzoo import BadInput, Run, decay_groups, decays, hookimpl

# A layer has a number: `layers.0.mlp.up_proj.weight`; embeddings and heads have none.
IN_A_LAYER = re.compile(r"\.\d+\.")


@dataclass
class Muon:
    """Muon for matrices in the layers, AdamW for the rest: 4 bytes of state per parameter"""

    momentum: Annotated[float, "decay of the sum of gradients", Ge(0), Lt(1)] = 0.95
    steps: Annotated[int, "Newton-Schulz iterations, which orthogonalise it", Ge(1), Le(99)] = 5

    @hookimpl
    def alignzoo_optimizer(
        self, run: Run, parameters: Sequence[tuple[str, nn.Parameter]]
    ) -> torch.optim.Optimizer:
        """Return both as one. A step is as large as one of AdamW, so that its rates apply."""
        hidden = [(name, p) for name, p in parameters if is_hidden_matrix(name, p)]
        names = {name for name, _ in hidden}
        others = [(name, p) for name, p in parameters if name not in names]
        if not hidden:
            raise BadInput(
                f"muon trains matrices of layers, and --adapter {run.recipe.adapter} has none",
                hint="use --optimizer adamw",
            )
        rate, decay = run.learning_rate, run.recipe.weight_decay
        muon = torch.optim.Muon(
            decay_groups(hidden, decay),
            lr=rate,
            momentum=self.momentum,
            ns_steps=self.steps,
            adjust_lr_fn="match_rms_adamw",
        )
        if not others:
            return muon
        return Combined([muon, torch.optim.AdamW(decay_groups(others, decay), lr=rate, fused=True)])


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return whether Muon trains a parameter: a matrix in a layer."""
    return parameter.ndim == 2 and decays(name, parameter) and bool(IN_A_LAYER.search(name))


class Combined(torch.optim.Optimizer):
    """Several optimizers as one: the groups and the states of the whole are those of the parts."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step of each part."""
        assert closure is None, "the loss is computed before the step"
        for part in self.parts:
            part.step()

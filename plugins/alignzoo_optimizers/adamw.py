"""AdamW, with states in 32 bits by torch, or in 8 bits by bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from alignzoo import BadInput, Run, decay_groups, hookimpl
from alignzoo.errors import NotAvailable


@dataclass
class AdamW:
    """AdamW, the default: 8 bytes of state per trained parameter"""

    beta1: Annotated[float, "decay of the mean of gradients", Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, "decay of the mean of squared gradients", Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, "added to the root of the mean of squares", Gt(0), Le(1)] = 1e-8

    @hookimpl
    def alignzoo_optimizer(
        self, run: Run, parameters: Sequence[tuple[str, nn.Parameter]]
    ) -> torch.optim.Optimizer:
        """Return the optimizer, with the recipe's learning rate and weight decay."""
        groups = decay_groups(parameters, run.recipe.weight_decay)
        settings: dict[str, Any] = {"betas": (self.beta1, self.beta2), "eps": self.eps}
        return self.make(run, groups, lr=run.learning_rate, **settings)

    def make(
        self, run: Run, groups: list[dict[str, Any]], **settings: Any
    ) -> torch.optim.Optimizer:
        """Return the optimizer of these groups."""
        return torch.optim.AdamW(groups, fused=True, **settings)


@dataclass
class AdamW8bit(AdamW):
    """AdamW with states in blocks of 8-bit numbers: 2 bytes per trained parameter"""

    min_8bit_size: Annotated[
        int, "a smaller matrix or vector keeps its states in 32 bits", Ge(0), Le(10**9)
    ] = 4096

    paged: ClassVar = False
    devices: ClassVar[Sequence[str]] = (
        "cpu",
        "cuda",
        "xpu",
    )  # for which bitsandbytes has the kernels

    def make(
        self, run: Run, groups: list[dict[str, Any]], **settings: Any
    ) -> torch.optim.Optimizer:
        """Return bitsandbytes' optimizer; raise `BadInput` if the device has no kernels for it."""
        from bitsandbytes.optim import AdamW as BlockAdamW

        if run.device.type not in self.devices:
            raise BadInput(
                f"8-bit optimizers of bitsandbytes do not work on {run.device.type}",
                hint="use --optimizer adamw or adafactor",
            )
        settings["min_8bit_size"] = self.min_8bit_size
        optimizer: torch.optim.Optimizer = BlockAdamW(
            groups, optim_bits=8, is_paged=self.paged, **settings
        )
        return optimizer


@dataclass
class PagedAdamW8bit(AdamW8bit):
    """AdamW with 8-bit states that leave the GPU while other tensors need its memory"""

    paged = True
    devices = ("cuda", "xpu")

    def __post_init__(self) -> None:
        if not (torch.cuda.is_available() or torch.xpu.is_available()):
            raise NotAvailable(
                "option --optimizer: a paged optimizer moves its states between a GPU's memory and "
                "the machine's, and there is no GPU here",
                hint="use --optimizer adamw-8bit",
            )

"""A number that tells two sets of base weights apart by every value, at the cost of one sum."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def checksum(model: nn.Module) -> str:
    """sha256 over the names, shapes, types and sums of the weights, read as whole numbers.

    Whatever LoRA has added is left out, so that a base is known with and without an adapter. Sums
    of whole numbers are exact in any order; a weight that is changed almost never keeps its sum.
    """
    digest = hashlib.sha256()
    named = ((base_name(name), weight) for name, weight in model.named_parameters())
    for name, weight in sorted((n, w) for n, w in named if "lora_" not in n):
        values = weight.detach().flatten()
        total = int(values.view(WHOLE[values.element_size()]).sum(dtype=torch.int64))
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {total}\n".encode())
    return digest.hexdigest()


def base_name(name: str) -> str:
    """The name that a weight has without the adapter around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")

"""Base models kept in memory by a process that makes many runs from the same ones.

A run changes the model that it is given: it puts adapters into its layers, or trains its weights.
So a kept base is never handed out; each run gets a copy of it. It is kept on the CPU, so that a GPU
holds one model at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

KEPT_BASES = (
    2  # bases kept: that of a comparison's tasks, and another one, a reward model's perhaps
)


@dataclass
class _Kept:
    bases: dict[Hashable, tuple[PreTrainedModel, list[str]]] = field(default_factory=dict)
    enabled: bool = False


_kept = _Kept()


def keep_bases() -> None:
    """Keep the bases that this process loads from now on, the two that were used last."""
    _kept.enabled = True


def load_kept(
    key: Hashable,
    device: torch.device,
    load: Callable[[], PreTrainedModel],
    notes: list[str],
) -> PreTrainedModel:
    """Return a copy of the base that is kept under `key`, or what `load` returns.

    What loading adds to `notes` is added again for each copy.
    """
    if not _kept.enabled:
        return load()
    if key not in _kept.bases:
        before = len(notes)
        loaded = load()
        _kept.bases[key] = copy_to(loaded, torch.device("cpu")), notes[before:]
        if len(_kept.bases) > KEPT_BASES:
            del _kept.bases[next(iter(_kept.bases))]
        return loaded
    base, told = _kept.bases[key] = _kept.bases.pop(key)  # the newest is the last
    notes += told
    return copy_to(base, device)


def copy_to(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy of a model on a device."""
    copied = copy.deepcopy(model)
    torch.nn.Module.to(copied, device)  # transformers' own `to` has another signature for mypy
    return copied

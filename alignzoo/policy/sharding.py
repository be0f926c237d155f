"""Weights split over the processes of a run, by torch's FSDP2: each holds a part of every weight.

The units are the layers of the decoder: the weights of a layer are gathered for its forward and its
backward pass, and freed again. All others (embeddings, norms, the head) are the root's, a module
whose forward pass is a call of the scorer, so that the chunked head finds its weight whole.

A pass is a collective call: all processes make the same passes in the same order. Inside `whole`,
every process has all weights, and may make as many passes as it likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from alignzoo.batch import Batch
from alignzoo.policy.forward import DEFAULT_OPTIONS, ForwardOptions, Outputs
from alignzoo.policy.layout import HiddenState
from alignzoo.policy.scoring import Scorer

_Found = TypeVar("_Found")
WITHOUT_SHARD = "leave --shard out: each process then holds the whole model"


class Root(nn.Module):
    """The module around which weights are gathered: its forward pass is a method of a scorer."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[..., _Found], *args: Any) -> _Found:
        """Return `compute(*args)`, which has to be tensors, or a dict of them."""
        return compute(*args)


class ShardedScorer:
    """A scorer of a model whose weights are split over processes: a pass through its root."""

    def __init__(self, root: nn.Module, scorer: Scorer):
        self.root, self.scorer = root, scorer
        self.shared, self.note, self.limit = scorer.shared, scorer.note, scorer.limit

    def __call__(self, batch: Batch, options: ForwardOptions = DEFAULT_OPTIONS) -> Outputs:
        # As a dict, in which torch finds the tensors whose backward pass begins here.
        return Outputs(**self.root(lambda: vars(self.scorer(batch, options))))

    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        """See `Scorer`."""
        return self.root(self.scorer.states, batch, which, options)


class Sharding:
    """The networks of a policy whose weights are split over processes: none, or all of them.

    A pass through the root comes first, so that torch knows it as the root; see `Policy.shard`.
    """

    def __init__(self) -> None:
        self._roots: list[Any] = []  # modules with the methods of `FSDPModule`
        self._is_whole = self._trains_base = False

    @property
    def active(self) -> bool:
        """True if each process holds a part of every weight."""
        return bool(self._roots)

    def add(self, model: nn.Module, scorer: Scorer, processes: int) -> ShardedScorer:
        """Split the weights of a network over the processes, and return a scorer that knows it."""
        self._trains_base |= all(p.requires_grad for p in model.parameters())
        root = shard_weights(Root(model), processes)
        self._roots.append(root)
        return ShardedScorer(root, scorer)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gather all weights in each process inside the block; all processes enter it."""
        if self._is_whole or not self.active:
            yield
            return
        self._is_whole = True
        try:
            for unit in self._units():
                unit.set_reshard_after_forward(False)
                unit.unshard()
            yield
        finally:
            self._is_whole = False
            for root in self._roots:
                # It frees the weights, and forgets the passes, of which other processes had others.
                root.reset_iter_state()
                root.set_reshard_after_forward(True)

    def exchange_gradients(self, *, last: bool) -> None:
        """Choose whether the next backward pass, perhaps the `last` of a step, sums its gradient.

        The gradient of an adapter is small: processes exchange it once, and add up their own until
        then. That of all weights is exchanged by each pass, so that none has to hold it whole.
        """
        for unit in self._units():
            unit.set_requires_gradient_sync(last or self._trains_base)

    def _units(self) -> list[FSDPModule]:
        return [unit for root in self._roots for unit in units_of(root)]


def shard_weights(root: nn.Module, processes: int) -> nn.Module:
    """Split the weights of a module over the processes, in place, and return it.

    Gradients are sums over the processes, not means: the loop divides them by the global count.
    """
    device = next(root.parameters()).device
    mesh = init_device_mesh(device.type, (processes,))
    for layer in layers_of(root):
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    for unit in units_of(root):
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no product with a factor
        # Tokens of only some processes may reach an expert: all of them exchange its gradient.
        unit.set_reduce_scatter_unused_params(True)
    return root


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the decoder's layers: the list of modules that holds the most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(p.numel() for p in module.parameters()) for module in lists]
    return list(lists[sizes.index(max(sizes))]) if lists else []


def shares_weights(model: nn.Module) -> bool:
    """Return True if two layers share a weight, or a layer and what is outside of them."""
    layers = layers_of(model)
    inside = {module for layer in layers for module in layer.modules()}
    outside = [module for module in model.modules() if module not in inside]
    owners = Counter({p for module in outside for p in module.parameters(recurse=False)})
    for layer in layers:
        owners.update(set(layer.parameters()))
    return any(count > 1 for count in owners.values())


def units_of(root: nn.Module) -> list[FSDPModule]:
    """Return the modules whose weights are gathered together, the root first."""
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def is_split(x: Tensor) -> bool:
    """Return True for a tensor of which each process holds a part."""
    return isinstance(x, DTensor)


def gather_tensor(x: Tensor) -> Tensor:
    """Return a tensor as a whole, in every process; all of them call it if it is split."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def own_part(x: Tensor) -> Tensor:
    """Return what this process holds of a tensor: all of it unless it is split."""
    return x.to_local() if isinstance(x, DTensor) else x


@torch.no_grad()
def split_like(x: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor split as another one of its shape is, or as it is if that is whole.

    Every process has the whole: nothing is sent.
    """
    if not isinstance(other, DTensor) or x.shape != other.shape:
        return x
    return distribute_tensor(
        x.to(other.device), other.device_mesh, other.placements, src_data_rank=None
    )


def empty_like(other: Tensor | None, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a tensor without values, split as another one of its shape, else whole on the CPU."""
    if isinstance(other, DTensor) and other.shape == shape:
        return torch.empty_like(other, dtype=dtype, requires_grad=False)
    return torch.empty(shape, dtype=dtype)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a module whose weights are gathered now: see `Sharding.whole`."""
    named = [*model.named_parameters(remove_duplicate=False), *persistent_buffers(model)]
    return {name: x.detach() for name, x in named}


def persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that a state dict has, by name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}".lstrip("."), buffer

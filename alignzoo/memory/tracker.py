"""Record what the operations of a block allocate and free, whether or not tensors have values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(NamedTuple):
    """The most bytes at once, those of logits and of gradients, and what else was held then."""

    activations: int = 0
    logits: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """Return all bytes."""
        return sum(self)


class MemoryTracker(TorchDispatchMode):
    """Record when the storage of every tensor that an operation makes is allocated and freed.

    Storages that exist before the block do not count. `vocabulary` is the width by which logits are
    known. What a kernel allocates for itself and frees before it returns is not seen.
    """

    def __init__(self, vocabulary: int = 0):
        super().__init__()
        self.vocabulary = vocabulary
        self._changes: list[tuple[int, int]] = []  # serial number of a storage, bytes more or less
        self._alive: dict[int, tuple[int, Any]] = {}  # by address: its number, a weak reference
        self._logits: set[int] = set()
        self._known: set[int] = set()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Leave out the storages of these tensors, which exist already."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and record the storages that are new in its results."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive or address in self._known:
            return
        number, size = len(self._changes), storage.nbytes()
        self._changes.append((number, size))

        def free(_: Any) -> None:
            del self._alive[address]
            self._changes.append((number, -size))

        self._alive[address] = number, weakref.ref(storage, free)
        if tensor.ndim == 2 and tensor.shape[1] == self.vocabulary and tensor.is_floating_point():
            self._logits.add(number)

    @property
    def held(self) -> int:
        """Return the bytes that are allocated now."""
        return sum(change for _, change in self._changes)

    def peak(self, gradients: Iterable[Tensor] = ()) -> Peak:
        """Return the most bytes at once since the block began.

        `gradients` are those that it has left.
        """
        kinds = dict.fromkeys(self._logits, "logits")
        for tensor in gradients:
            found = self._alive.get(tensor.untyped_storage()._cdata)
            if found is not None:
                kinds[found[0]] = "gradients"
        now, highest = Peak(), Peak()
        for number, change in self._changes:
            kind = kinds.get(number, "activations")
            now = now._replace(**{kind: getattr(now, kind) + change})
            if now.total > highest.total:
                highest = now
        return highest


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of tensors, one that several share counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())

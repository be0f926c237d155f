"""Charge every forward pass of a model where it is computed.

The methods of a `LanguageModel` charge what they compute, at the cost of useful work. Whatever else
runs the network (beams, hidden states, a loss on its logits) is charged by hooks on its backbone
and its head, from the sizes of what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.ledger import Cost
from alignzoo.policy.flops import FlopsProfile


class Meter:
    """Where a model charges its forward passes: `charge`, None for nowhere."""

    def __init__(self) -> None:
        self.charge: Callable[[Cost], None] | None = None
        self._covered = 0

    @contextmanager
    def covered(self) -> Iterator[None]:
        """Charge nothing inside the block, whose passes the caller charges."""
        self._covered += 1
        try:
            yield
        finally:
            self._covered -= 1

    def add(self, cost: Callable[[], Cost]) -> None:
        """Charge the cost of a pass, computed only if it is to be charged."""
        if self.charge is not None and not self._covered:
            self.charge(cost())

    def watch(
        self, backbone: nn.Module, head: nn.Module | None, sizes: Callable[[], FlopsProfile]
    ) -> None:
        """Charge the passes of a network from outside: those that no method has covered.

        `sizes` gives the sizes of the network with the adapter that it has in that pass. A copy of
        the network is charged as well.
        """

        # Functions, for a deep copy of a module would copy the object of a bound method, and all
        # that it leads to.
        def charge_backbone(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            def cost() -> Cost:
                tokens, attended = count_inputs(args, kwargs)
                flops = sizes()
                count = flops.update if output[0].requires_grad else flops.forward
                return Cost(count(tokens, attended, 0), tokens)

            self.add(cost)

        def charge_head(_: nn.Module, args: Any, output: Tensor) -> None:
            def cost() -> Cost:
                flops = sizes().without_adapter
                count = flops.update if output.requires_grad else flops.forward
                return Cost(count(0, 0, output.shape[:-1].numel()))

            self.add(cost)

        backbone.register_forward_hook(charge_backbone, with_kwargs=True)
        if head is not None:
            head.register_forward_hook(charge_head)


def count_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, float]:
    """Count the tokens that a pass computes, and the pairs of a query and a key that attend.

    Padding is left out if the pass has a mask `[N, S]` of all S positions, those in the cache
    included. A causal mask is assumed.
    """
    inputs = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
    if inputs is None:
        inputs = args[0]
    rows, new = inputs.shape[:2]  # N, L
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        length = getattr(kwargs.get("past_key_values"), "get_seq_length", lambda: new)
        mask = torch.ones(rows, max(int(length()), new))  # after the pass, the cache has its tokens
    counted = mask[:, -new:] != 0  # (N, L)
    keys = (mask != 0).cumsum(1)[:, -new:]  # (N, L): of each query, itself included
    return int(counted.sum()), float(keys[counted].sum())

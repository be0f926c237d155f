"""The forward passes of a run, each charged to the ledger under the current purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.ledger import Ledger
from alignzoo.policy import HiddenState, Outputs, Perturb, Policy

Known = Callable[[Batch], Tensor | None]
Observer = Callable[[Batch, Tensor], None]


class Forwards:
    """Log-probs, values and scores of batches under the policy and under its reference.

    `known` returns cached log-probs of the reference for a batch, None if it lacks some of them.
    The purpose of a pass is "update" inside the loss hook, "reference" for the reference, and
    otherwise "scoring", or the one that `purpose` sets.
    """

    def __init__(self, policy: Policy, ledger: Ledger):
        self.model, self.ledger = policy, ledger
        self.known: Known | None = None
        self._purpose: str | None = "scoring"  # None: free of charge
        self._observers: list[tuple[Observer, float]] = []

    @contextmanager
    def purpose(self, name: str | None) -> Iterator[None]:
        """Charge the passes inside the block to a purpose of the ledger; None charges nothing.

        A block inside one that charges nothing charges nothing.
        """
        before, self._purpose = self._purpose, name if self._purpose is not None else None
        try:
            yield
        finally:
            self._purpose = before

    @contextmanager
    def observed(self, observer: Observer, temperature: float) -> Iterator[None]:
        """Call `observer(batch, logprobs)` for the policy's passes at this temperature."""
        self._observers.append((observer, temperature))
        try:
            yield
        finally:
            self._observers.pop()

    def policy(
        self,
        batch: Batch,
        *,
        perturb: Perturb | None = None,
        values: bool = False,
        temperature: float = 1.0,
        **wanted: bool,
    ) -> Outputs:
        """Return the log-probs `[N, T]` of the completions under the policy, in nats.

        `wanted` are further outputs: `entropy=True` or `log_sum_p2=True`. See `Policy.__call__`.
        """
        self._charge(batch)
        if values and self.model.values_apart:
            self._charge(batch, lm_head=False)
        outputs = self.model(
            batch, perturb=perturb, values=values, temperature=temperature, **wanted
        )
        for observer, at in self._observers:
            if perturb is None and temperature == at:
                observer(batch, outputs.logprobs)
        return outputs

    def values(self, batch: Batch) -> Tensor:
        """Return the value of the state before each token, `[N, T]`."""
        self._charge(batch, lm_head=False)
        return self.model.values(batch)

    def reference(self, batch: Batch, *, temperature: float = 1.0) -> Outputs:
        """Return the log-probs `[N, T]` under the reference, in nats, without gradient.

        The reference is the model as it was before training, unless it was moved. Cached log-probs
        are neither computed nor charged.
        """
        if self.known is not None and not self.model.reference_moved and temperature == 1.0:
            known = self.known(batch)
            if known is not None:
                return Outputs(known)
        self._charge(batch, "reference", reference=True)
        return self.model.reference(batch, temperature=temperature)

    def scores(self, batch: Batch, *, per_token: bool = False) -> Tensor:
        """Return the score of each completion, `[N]`, which is that of its last token.

        With `per_token`, return the scores of all tokens, `[N, T]`.
        """
        self._charge(batch, states=HiddenState.OF_TOKEN)
        scores = self.model.scores(batch)
        return scores if per_token else batch.last(scores)

    def _charge(self, batch: Batch, purpose: str | None = None, **kind: Any) -> None:
        if self._purpose is not None:
            backward = purpose is None and torch.is_grad_enabled()
            cost = self.model.cost(batch, backward=backward, **kind)
            self.ledger.charge(purpose or self._purpose, cost)

"""The forward passes of a run, which the model charges to the ledger under the current purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.ledger import Cost, Ledger
from alignzoo.policy import Outputs, Perturb, Policy
from alignzoo.run.teacher import AnyTeacher, require_teacher, require_weights

Known = Callable[[Batch], Tensor | None]
Observer = Callable[[Batch, Tensor], None]


class Forwards:
    """Log-probs, values and scores of batches under the policy and under its reference.

    `known` returns cached log-probs of the reference for a batch, None if it lacks some of them.
    Every pass of the model is charged, also one that a plugin makes by itself. Its purpose is
    "update" inside the loss hook, "reference" for the reference, "teacher" for the teacher, and
    otherwise "scoring", or the one that `purpose` sets.
    """

    def __init__(self, policy: Policy, ledger: Ledger):
        self.model, self.ledger = policy, ledger
        self.known: Known | None = None
        self.loaded_teacher: AnyTeacher | None = None
        self._purpose: str | None = "scoring"  # None: free of charge
        self._observers: list[tuple[Observer, float]] = []
        policy.charge_to(self._charge_pass)

    def charge(self, cost: Cost, purpose: str | None = None) -> None:
        """Charge a cost to a purpose, or to the current one; nothing if passes are free now."""
        if self._purpose is not None:
            self.ledger.charge(purpose or self._purpose, cost)

    def _charge_pass(self, cost: Cost) -> None:
        """Charge a pass of the model: of the reference to "reference", unless it is the teacher."""
        is_reference = self.model.is_reference and self._purpose != "teacher"
        self.charge(cost, "reference" if is_reference else None)

    @property
    def is_free(self) -> bool:
        """Return whether passes are free of charge now."""
        return self._purpose is None

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
        """Call `observer(batch, logprobs)` for the policy's charged passes at this temperature."""
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
        **wanted: Any,
    ) -> Outputs:
        """Return the log-probs `[N, T]` of the completions under the policy, in nats.

        `wanted` are further `Outputs`: `entropy=True`, `hidden=True`, `top_k=K`; see
        `LanguageModel.__call__`.
        """
        outputs = self.model(
            batch, perturb=perturb, values=values, temperature=temperature, **wanted
        )
        for observer, at in self._observers if not self.is_free else []:
            if perturb is None and temperature == at:
                observer(batch, outputs.logprobs)
        return outputs

    def values(self, batch: Batch) -> Tensor:
        """Return the value of the state before each token, `[N, T]`."""
        return self.model.values(batch)

    def reference(self, batch: Batch, *, temperature: float = 1.0, **wanted: Any) -> Outputs:
        """Return the log-probs `[N, T]` under the reference, in nats, without gradient.

        The reference is the model as it was before training, unless it was moved. Cached log-probs
        are neither computed nor charged.
        """
        plain = temperature == 1.0 and not wanted
        if self.known is not None and plain and not self.model.reference_moved:
            known = self.known(batch)
            if known is not None:
                return Outputs(known)
        return self.model.reference(batch, temperature=temperature, **wanted)

    def teacher(self, batch: Batch, **wanted: Any) -> Outputs:
        """Return the log-probs `[N, T]` under the teacher, in nats, without gradient."""
        with self.purpose("teacher"):
            return require_teacher(self.loaded_teacher).outputs(batch, **wanted)

    def divergence(
        self, batch: Batch, *, beta: float, teacher_batch: Batch | None = None, **wanted: Any
    ) -> Outputs:
        """Return what `policy` returns, with the `divergence` from the teacher, `[N, T]`.

        It is `alignzoo.policy.generalized_jsd` over the whole vocabulary, in nats: KL(teacher ||
        policy) for `beta` 0, KL(policy || teacher) for 1. Its gradient is that of the policy alone.
        The teacher may see other prompts: `teacher_batch` has the same completions after them.
        """
        teacher = require_weights(self.loaded_teacher)
        with self.purpose("teacher"):
            theirs = teacher.distributions(teacher_batch or batch, beta)
            self.charge(teacher.head_cost(batch))
        return self.policy(batch, divergence=theirs, **wanted)

    def scores(self, batch: Batch, *, per_token: bool = False) -> Tensor:
        """Return the score of each completion, `[N]`, which is that of its last token.

        With `per_token`, return the scores of all tokens, `[N, T]`.
        """
        scores = self.model.scores(batch)
        return scores if per_token else batch.last(scores)

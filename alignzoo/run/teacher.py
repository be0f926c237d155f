"""The teacher of a run: a model that the policy learns from, and that is never trained.

It is in memory, or behind a server: see `server_teacher`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.ledger import Cost
from alignzoo.policy import DivergenceFrom, LanguageModel, Outputs, Policy
from alignzoo.run.server_teacher import ServerTeacher

BASE = "base"  # as --teacher: the run's own reference, which is its model before training


@dataclass(frozen=True)
class Teacher:
    """A model to learn from: another one, or the reference of the policy, if it `is_base`."""

    model: Policy
    is_base: bool = False

    @contextmanager
    def ready(self) -> Iterator[LanguageModel]:
        """Yield the model in evaluation mode, for passes without gradient inside the block."""
        mode = self.model.as_reference() if self.is_base else self.model.evaluating()
        with torch.no_grad(), mode:
            yield self.model

    def outputs(self, batch: Batch, **wanted: Any) -> Outputs:
        """Return its log-probs `[N, T]` of a batch, and what else is `wanted`, without gradient."""
        with self.ready() as model:
            return model(batch, **wanted)

    def distributions(self, batch: Batch, beta: float) -> DivergenceFrom:
        """Return its distributions of the tokens of a batch, to compute a divergence from."""
        with self.ready() as model:
            return DivergenceFrom(model(batch, hidden=True).hidden, model.lm_head, beta)

    def head_cost(self, batch: Batch) -> Cost:
        """Return the cost of the head, which the pass that computes a divergence applies again."""
        sizes = self.model.flops.without_adapter
        return Cost(sizes.forward(0, 0, int(batch.lengths.sum())))


AnyTeacher = Teacher | ServerTeacher


def require_teacher(teacher: AnyTeacher | None) -> AnyTeacher:
    """Return the teacher of a run; raise `RunFailed` if it has none."""
    if teacher is None:
        raise RunFailed(
            "the run has no teacher",
            hint="an algorithm that uses one declares it: needs = Needs(teacher=True)",
        )
    return teacher


def require_weights(teacher: AnyTeacher | None) -> Teacher:
    """Return the teacher of a run; raise `BadInput` if it is on a server."""
    found = require_teacher(teacher)
    if isinstance(found, ServerTeacher):
        raise BadInput(
            "option --teacher: a server gives the log-probs of a few tokens at each position, and "
            "no divergence over the whole vocabulary",
            hint="use --teacher-top-k or --loss-type sampled of distill, or name the model itself",
        )
    return found


def refuse_other_tokens(other: LanguageModel, own: LanguageModel, names: str) -> None:
    """Raise `BadInput` with an example if token ids do not mean the same to two models."""
    theirs, ours = other.tokenizer.get_vocab(), own.tokenizer.get_vocab()
    if theirs == ours:
        return
    token = min(token for token, _ in theirs.items() ^ ours.items())
    ids = [str(vocabulary.get(token, "not there")) for vocabulary in (theirs, ours)]
    raise BadInput(
        f"the vocabulary of {names}: token {token!r} is {ids[0]} in the one, {ids[1]} in the other",
        hint="use a model with the same tokenizer",
    )

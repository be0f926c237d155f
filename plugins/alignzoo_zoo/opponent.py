"""The policy as it stands when a round begins: the opponent, and the reference of the round."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alignzoo import Batch, Loss, Run
from alignzoo.functional import pair_metrics

OPPONENT = "opponent"  # a column: log-probs under the policy that began the round, [N, T]


@torch.no_grad()
def opponent_logprobs(run: Run, batch: Batch, temperature: float = 1.0) -> Tensor:
    """That column of a round's batch, asked for before the first step; without dropout."""
    with run.model.evaluating():
        return batch.piecewise(
            lambda micro: run.policy(micro.to(run.device), temperature=temperature).logprobs,
            run.micro_tokens,
        )


def pair_loss(run: Run, batch: Batch, loss: Callable[[Tensor, float], Tensor], beta: float) -> Loss:
    """A loss of the margin of each pair against the opponent, and what is logged of pairs."""
    policy = run.policy(batch).logprobs
    chosen, rejected = batch.pairs(batch.total(policy - batch[OPPONENT]))
    metrics = pair_metrics((beta * chosen, beta * rejected), batch.pairs(batch.total(policy)))
    return Loss.per_sequence(loss(chosen - rejected, beta), metrics)

"""The policy at the start of a round: the opponent of self-play, and the reference of its loss."""

from __future__ import annotations

from torch import Tensor

from alignzoo import Batch, Run
from alignzoo.rollout import compute_column

OPPONENT = "opponent"  # a column: log-probs under the policy at the start of the round, [N, T]


def opponent_logprobs(run: Run, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Compute the column `OPPONENT` of a round, `[N, T]`. Call it before the first step."""
    return compute_column(
        run, batch, lambda micro: run.policy(micro, temperature=temperature).logprobs
    )

"""Losses on pairs of completions that are in a batch with their log-probs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from alignzoo import Batch
from alignzoo.functional import pair_metrics

PairLoss = Callable[[Tensor, float], Tensor]


def pair_loss(
    batch: Batch,
    logprobs: Tensor,
    reference: Tensor,
    loss: PairLoss,
    beta: float,
    first_chosen: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute a loss of the margin of each pair, `[B]`, and the metrics of the pairs.

    The margin is the log-ratio of the chosen completion minus that of the rejected one, summed over
    tokens, in nats.

    Args:
        logprobs, reference: log pi and log pi_ref of each token, `[N, T]`; N = 2 B.
        loss: a function of the margin and `beta`, such as `alignzoo.functional.sigmoid_loss`.
        first_chosen: bool, `[B]`, False if the second completion of a pair is the chosen one; by
            default the first is.
    """
    ratios = batch.pairs(batch.total(logprobs - reference))
    logps = batch.pairs(batch.total(logprobs))
    if first_chosen is not None:
        ratios, logps = order_pair(first_chosen, *ratios), order_pair(first_chosen, *logps)
    chosen, rejected = ratios
    return loss(chosen - rejected, beta), pair_metrics((beta * chosen, beta * rejected), logps)


def order_pair(first_chosen: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return (chosen, rejected), each `[B]`, from values in the order of sampling."""
    return first.where(first_chosen, second), second.where(first_chosen, first)

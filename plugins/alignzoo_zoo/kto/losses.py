"""The loss of Kahneman-Tversky optimisation, and the mismatched rows that estimate its KL."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo import Example


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """Compute KTO's loss: how far the value of a completion is below its maximum.

        L = lambda_D (1 - sigmoid(beta (r - z0)))    if the completion is desirable
        L = lambda_U (1 - sigmoid(beta (z0 - r)))    if it is not

    where r = log pi(y|x) - log pi_ref(y|x), and z0 = KL(pi || pi_ref) is the reference point,
    without gradient. Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, section 4.
    With z0 = 0 it is the unpaired form of APO-zero, equation 7 of D'Oosterlinck et al. 2024,
    https://arxiv.org/abs/2408.06266.

    Args:
        log_ratio: r, summed over tokens, in nats; `[N]`.
        desirable: the labels, bool; `[N]`.
        kl: z0, in nats, >= 0; `[N]` or a scalar.
        beta: how fast the value saturates, > 0, in 1/nats.
        desirable_weight, undesirable_weight: lambda_D and lambda_U.

    Returns:
        One loss per completion in (0, lambda), `[N]`; lambda / 2 if r = z0.
    """
    gain = torch.where(desirable, log_ratio - kl, kl - log_ratio)
    # 1 - sigmoid(x) = sigmoid(-x), which does not round to 0 for a large x.
    return torch.where(desirable, desirable_weight, undesirable_weight) * (-beta * gain).sigmoid()


def mismatch(rows: list[Example], max_length: int) -> list[Example]:
    """Pair every prompt with the completion of the next row, the last prompt with the first.

    Rows with the same prompt (both sides of a pair, say) are no mismatch and are left out. A
    completion is truncated so that it and its new prompt have at most `max_length` tokens.
    """
    return [
        Example(row.prompt, [after.completions[0][: max_length - len(row.prompt)]])
        for row, after in zip(rows, rows[1:] + rows[:1], strict=True)
        if row.prompt != after.prompt
    ]


def reference_point(log_ratio_sum: Tensor, count: Tensor) -> Tensor:
    """Compute z0 = max(0, mean of log pi(y'|x) - log pi_ref(y'|x)) over mismatched y'.

    A scalar in nats, 0 if nothing was mismatched. Ethayarajh et al. 2024, section 4.

    Args:
        log_ratio_sum: the sum over the mismatched completions, in nats; a scalar.
        count: the number of mismatched completions; a scalar.
    """
    return (log_ratio_sum / count.clamp(min=1)).clamp(min=0)

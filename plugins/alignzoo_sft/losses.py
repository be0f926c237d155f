"""The loss of supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logprobs: Tensor) -> Tensor:
    """The negative log-likelihood of each token.

        L_t = -log pi(y_t | x, y_<t)

    Args:
        logprobs: log-probs of the demonstrated tokens, in nats; `[N, T]`.

    Returns:
        One loss per token, `[N, T]`.
    """
    return -logprobs

"""The losses of supervised fine-tuning, and its noise, as pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(logprobs: Tensor) -> Tensor:
    """Compute the negative log-likelihood of each token.

        L_t = -log pi(y_t | x, y_<t)

    Args:
        logprobs: log-probs of the demonstrated tokens, in nats; `[N, T]`.

    Returns:
        One loss per token, `[N, T]`.
    """
    return -logprobs


def dynamic_fine_tuning(logprobs: Tensor) -> Tensor:
    """Compute cross-entropy weighted by the probability of the token (DFT).

        L_t = -sg(pi(y_t | x, y_<t)) log pi(y_t | x, y_<t)        (sg: no gradient through it)

    Seen as a policy gradient, cross-entropy gives each token the reward 1 / pi, which is huge for
    unlikely tokens; the weight cancels it. Equation 9 of Wu et al. 2025,
    https://arxiv.org/abs/2508.05629.

    Args:
        logprobs: log-probs of the demonstrated tokens, in nats; `[N, T]`.

    Returns:
        One loss per token, `[N, T]`, in [0, 1/e]. It may rise while the model learns.
    """
    return -logprobs.detach().exp() * logprobs


def noisy_embeddings(embeddings: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    """Add uniform noise to the input embeddings (NEFTune).

        x' = x + alpha / sqrt(L d) * e,        e ~ U(-1, 1)

    L is the length of the sequence and d the width of the embeddings, so the noise of any sequence
    has a norm of about alpha / sqrt(3). Algorithm 1 of Jain et al. 2023,
    https://arxiv.org/abs/2310.05914.

    Args:
        embeddings: of each token; `[..., d]`.
        lengths: length of the sequence of each token; `[...]`.
        alpha: strength of the noise, >= 0.

    Returns:
        The noisy embeddings, `[..., d]`.
    """
    scale = alpha / (lengths * embeddings.shape[-1]).float().sqrt()
    noise = torch.empty_like(embeddings).uniform_(-1, 1)
    return embeddings + (noise * scale[..., None]).to(embeddings.dtype)

"""A bigram language model instead of a policy: each token depends on the one before it only.

The agreement tests give the same model to TRL, so that both see the same token ids from the start.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from alignzoo import Batch

VOCABULARY = 7


def bigram(seed: int) -> Tensor:
    """Return random logits `[V, V]` of the next token, with gradient."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
    return logits.requires_grad_()


def logprobs_of(logits: Tensor, batch: Batch) -> Tensor:
    """Return `run.policy(batch).logprobs` of a bigram model, `[N, T]`."""
    last = batch.prompts.gather(1, batch.prompt_lengths[:, None] - 1)[batch.group]
    before = torch.cat([last, batch.tokens[:, :-1]], dim=1)
    logprobs = logits.log_softmax(-1)[before, batch.tokens]
    inside = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    return torch.where(inside, logprobs, 0.0)


def fake_run(policy: Tensor, reference: Tensor | None = None, micro_tokens: int = 8192):
    """Return the parts of a run that a loss reads, with one or two bigram models."""

    def forward(logits):
        return lambda batch: SimpleNamespace(logprobs=logprobs_of(logits, batch))

    def frozen(batch):
        return SimpleNamespace(logprobs=logprobs_of(reference.detach(), batch))

    state: dict = {}
    return SimpleNamespace(
        policy=forward(policy),
        reference=frozen,
        recipe=SimpleNamespace(max_length=1024),
        micro_tokens=micro_tokens,
        device=torch.device("cpu"),
        world=SimpleNamespace(sum=lambda x: x),
        gather=lambda values: values,
        shard=lambda rows: rows,
        state_of=lambda plugin: state,
    )

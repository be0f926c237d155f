"""Two groups of completions with log-probs, ratios and advantages that cover every branch."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from alignzoo import Batch, Example, collate

LENGTHS = [[4, 2, 3], [1, 5, 2]]
ADVANTAGES = [1.2, -0.7, 0.0, 1.1, -0.4, 0.9]
LONGEST = 6  # max_new_tokens


def values(seed: int, scale: float, mask: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    drawn = scale * torch.randn(mask.shape, generator=draw, dtype=torch.float64)
    return torch.where(mask, drawn, 0.0)


def make_batch(ended: bool = True) -> Batch:
    """Make a batch with the columns of the sampler and of `alignzoo_advantage`, in float64."""
    batch = collate([Example([1, 2], [[3] * n for n in group]) for group in LENGTHS])
    inside = batch.mask.clone()
    batch.mask[0, 2] = False  # a token that is not trained on
    old = torch.where(inside, -1.5 + values(1, 0.3, inside), 0.0)
    batch.columns = {
        "logprobs": old,
        "reference": torch.where(inside, old + values(2, 0.6, inside), 0.0),
        "advantages": torch.tensor(ADVANTAGES, dtype=torch.float64),
        "rewards": torch.tensor([1.0, 0.0, 0.5, 0.0, 0.5, 1.0]),
        "ended": torch.tensor([True, ended, True, ended, True, True]),
        "mean_tokens": torch.full((6,), 2.5),
        "chosen": batch.mask & (values(3, 1.0, inside) > 0.5),
    }
    return batch


def policy_logprobs(batch: Batch, scale: float = 0.5, seed: int = 6) -> Tensor:
    """Return log-probs of a policy after some steps, about `scale` from the sampler's."""
    inside = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    return (batch["logprobs"] + values(seed, scale, inside)).requires_grad_()


def entropy_of(logprobs: Tensor) -> Tensor:
    """Return a stand-in for the entropy that has a gradient."""
    return 0.3 + logprobs**2


def run_around(logprobs: Tensor) -> SimpleNamespace:
    def policy(batch: Batch, entropy: bool, temperature: float = 1.0) -> SimpleNamespace:
        return SimpleNamespace(logprobs=logprobs, entropy=entropy_of(logprobs))

    recipe = SimpleNamespace(max_new_tokens=LONGEST)
    return SimpleNamespace(policy=policy, recipe=recipe, temperature=1.0)

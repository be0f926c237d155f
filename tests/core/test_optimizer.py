"""Which weights decay."""

from __future__ import annotations

import torch
from torch import nn

from alignzoo.training.optimizer import make_optimizer


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(list(model.parameters()), 0.1, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, p in model.named_parameters():
        kept = 1.0 if p.ndim == 1 else 1 - 0.1 * 0.5
        assert torch.allclose(p, kept * before[name]), name


def test_all_of_one_kind():
    for model in (nn.LayerNorm(3), nn.Linear(3, 3, bias=False)):
        optimizer = make_optimizer(list(model.parameters()), 0.1, 0.5)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
            list(model.parameters())
        )

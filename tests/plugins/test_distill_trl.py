"""Distillation against TRL 1.16: the same divergence of the same tensors, with its gradient."""

from __future__ import annotations

import pytest
import torch

from alignzoo.policy import generalized_jsd
from alignzoo.policy.divergence import HeadInputs, chunked_divergence
from alignzoo.policy.logprobs import LogitTransform

pytest.importorskip("trl")
from trl.experimental.gkd import GKDTrainer
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 5, 11, generator=DRAW)  # of the policy and the teacher
MASK = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
BETAS = [0.0, 0.1, 0.5, 1.0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", BETAS)
def test_the_loss_of_gkd(beta, temperature):
    policy, teacher = LOGITS[0].clone().requires_grad_(), LOGITS[1]
    labels = torch.where(MASK, 0, -100)
    theirs = GKDTrainer.generalized_jsd_loss(
        policy, teacher, labels, beta=beta, temperature=temperature
    )
    logps = [(x / temperature).log_softmax(-1) for x in (policy, teacher)]
    ours = torch.where(MASK, generalized_jsd(*logps, beta), 0.0).sum() / MASK.sum()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    [a], [b] = (torch.autograd.grad(x, policy) for x in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_the_chunked_divergence_of_the_distillation_trainer(beta):
    draw = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(7, 6, generator=draw), torch.randn(40, 6, generator=draw)
    other, wider = torch.randn(7, 4, generator=draw), torch.randn(40, 4, generator=draw)
    hidden.requires_grad_()
    theirs, _ = ChunkedDivergenceFunction.apply(
        hidden, weight, None, other, wider, None, beta, 0.7, 1.0, 3.0, 1.0, None
    )
    ours = chunked_divergence(
        HeadInputs(hidden, weight, None, LogitTransform(0.7, 3.0)),
        HeadInputs(other, wider, None, LogitTransform(0.7)),
        beta,
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
    [a], [b] = (torch.autograd.grad(x.sum(), hidden) for x in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5)

"""Distillation against TRL 1.16: the same divergence of the same tensors, with its gradient."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from alignzoo.policy import generalized_jsd, top_k_jsd
from alignzoo.policy.divergence import HeadInputs, chunked_divergence
from alignzoo.policy.logprobs import LogitTransform

pytest.importorskip("trl")
from trl.experimental.gkd import GKDTrainer
from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss
from trl.experimental.server_distillation.server_distillation_trainer import (
    ServerDistillationTrainer,
)
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


def test_the_forward_kl_on_the_likeliest_tokens_of_a_server():
    policy, teacher = LOGITS[0].clone().requires_grad_(), LOGITS[1].log_softmax(-1)
    logprobs, ids = teacher.topk(3)
    trainer = SimpleNamespace(
        loss_add_tail=True,
        _reduce_divergence_loss=ServerDistillationTrainer._reduce_divergence_loss,
    )
    theirs = ServerDistillationTrainer._compute_server_forward_kl_loss(
        trainer,
        {"topk_logprobs": logprobs, "topk_token_ids": ids},
        policy.log_softmax(-1),
        torch.where(MASK, 0, -100),
    )
    ours = top_k_jsd(policy.log_softmax(-1).gather(-1, ids), logprobs, 0.0)[MASK].mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    [a], [b] = (torch.autograd.grad(x, policy) for x in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_the_divergence_on_likely_tokens_of_self_distillation(beta):
    """TRL takes the tokens that the policy finds likeliest; here both are given the same ones."""
    policy, teacher = LOGITS[0].clone().requires_grad_(), LOGITS[1]
    theirs = compute_topk_self_distillation_loss(
        policy, teacher, distillation_topk=4, distillation_alpha=beta, distillation_add_tail=True
    )
    ids = policy.topk(4).indices
    ours = top_k_jsd(*(x.log_softmax(-1).gather(-1, ids) for x in (policy, teacher)), beta)
    assert torch.allclose(ours, theirs, atol=1e-5)
    [a], [b] = (torch.autograd.grad(x.sum(), policy) for x in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5)

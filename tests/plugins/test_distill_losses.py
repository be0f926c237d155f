"""The loss of distillation on sampled tokens: a policy gradient with credit per token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.functional import importance_weights
from alignzoo.policy import Outputs
from alignzoo_zoo.distill.algorithm import Distill

POLICY = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, -1.0, 0.0]]).double()
TEACHER = torch.tensor([[-0.5, -2.5, -0.5], [-1.0, -4.0, 0.0]]).double()
SAMPLER = torch.tensor([[-1.0, -2.5, -0.4], [-4.5, -1.0, 0.0]]).double()


def measure(*, external: bool = False, cap: float = 2.0):
    batch = collate([Example([1, 2], [[3, 4, 5]]), Example([2], [[6, 7]])])
    batch.columns["logprobs"] = SAMPLER if external else POLICY
    leaf = POLICY.clone().requires_grad_()
    run = SimpleNamespace(
        policy=lambda batch, **options: Outputs(leaf, entropy=torch.zeros_like(leaf)),
        teacher=lambda batch, **options: Outputs(TEACHER),
        temperature=1.0,
        external_logprobs=external,
        recipe=SimpleNamespace(importance_cap=cap, importance_mode="token_truncate"),
    )
    loss = Distill(loss_type="sampled").alignzoo_loss(run, batch)
    loss.sum.backward()
    return loss, leaf.grad, batch


def test_the_gradient_is_that_of_the_credit():
    loss, gradient, batch = measure()
    credit = torch.where(batch.mask, TEACHER - POLICY, 0.0)  # A_t, by hand
    assert torch.allclose(gradient, -credit)
    assert float(loss.count) == 5
    # Halves of squares: (0.25 + 0.25 + 0 + 4 + 9) / 2; the reverse KL: -0.5 + 0.5 + 0 - 2 + 3.
    assert loss.sum.item() == pytest.approx(6.75)
    total, count = loss.metrics["distill/reverse_kl"]
    assert (float(total), float(count)) == (pytest.approx(1.0), 5)


def test_tokens_of_another_program_are_weighed():
    _, plain, _ = measure()
    _, weighed, batch = measure(external=True)
    weights = importance_weights(POLICY, SAMPLER, 2.0, mask=batch.mask)
    assert weights[1, 0] == 2.0  # e^1.5, capped
    assert torch.allclose(weighed, weights * plain)
    _, uncorrected, _ = measure(external=True, cap=0.0)
    assert torch.equal(uncorrected, plain)

"""SPIN's losses by hand, and beside DPO's."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo_dpo import losses as dpo
from alignzoo_selfplay.losses import hinge_loss, sigmoid_loss


def test_the_logistic_loss_by_hand():
    # log(1 + exp(-beta margin)) with beta margin = 0, ln 3 and -ln 3:
    # log 2, log(1 + 1/3) = log(4/3), log(1 + 3) = log 4.
    margin = torch.tensor([0.0, math.log(3), -math.log(3)], dtype=torch.float64) / 0.5
    expected = [math.log(2), math.log(4 / 3), math.log(4)]
    assert sigmoid_loss(margin, 0.5).tolist() == pytest.approx(expected)


def test_the_hinge_by_hand():
    # 1 - 0.1 margin, and nothing from a margin of 10 on.
    margin = torch.tensor([-5.0, 0.0, 4.0, 10.0, 20.0], dtype=torch.float64)
    assert hinge_loss(margin, 0.1).tolist() == pytest.approx([1.5, 1.0, 0.6, 0.0, 0.0])


def test_the_gradient_is_what_the_opponent_is_still_taken_for():
    # d/dm -log sigmoid(beta m) = -beta sigmoid(-beta m): with beta m = ln 3, -beta / 4.
    margin = torch.tensor([0.0, math.log(3) / 0.2], dtype=torch.float64, requires_grad=True)
    sigmoid_loss(margin, 0.2).sum().backward()
    assert margin.grad.tolist() == pytest.approx([-0.1, -0.05])


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(sigmoid_loss, dpo.sigmoid_loss), (hinge_loss, dpo.hinge_loss)]
)
def test_it_is_dpos_with_the_opponent_for_a_reference(ours, theirs, beta):
    margin = 30 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(margin, beta), theirs(margin, beta))


def test_a_margin_far_below_zero_is_finite():
    margin = torch.tensor([-1e6], requires_grad=True)
    sigmoid_loss(margin, 0.1).backward()
    assert margin.grad.item() == pytest.approx(-0.1)

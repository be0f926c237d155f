"""DPO's loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo_dpo.losses import sigmoid_loss


def test_equal_log_ratios_cost_ln_2():
    x = torch.tensor([-3.0, 0.0, 40.0])
    assert sigmoid_loss(x - x, 0.1).tolist() == pytest.approx([math.log(2)] * 3, abs=1e-7)


def test_value_and_gradient_by_hand():
    # beta (chosen - rejected) = 0.5 * (1.2 - (-0.8)) = 1: L = ln(1 + e^-1) = 0.3132617.
    # dL/dchosen = -beta * sigmoid(-1) = -0.5 * 0.2689414 = -0.1344707; rejected the opposite.
    chosen = torch.tensor([1.2], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-0.8], dtype=torch.float64, requires_grad=True)
    loss = sigmoid_loss(chosen - rejected, 0.5)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.3132617, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-0.1344707, abs=1e-7)
    assert rejected.grad.item() == pytest.approx(0.1344707, abs=1e-7)


@pytest.mark.parametrize(
    ("chosen", "loss", "gradient"), [(50.0, 0.0, 0.0), (-50.0, 50.0, -1.0), (-500.0, 500.0, -1.0)]
)
def test_extreme_log_ratios_stay_finite(chosen, loss, gradient):
    x = torch.tensor([chosen], requires_grad=True)
    value = sigmoid_loss(x, 1.0)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert x.grad.item() == pytest.approx(gradient, abs=1e-6)

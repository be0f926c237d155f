"""A*-PO: the value of a prompt and the regression by hand, and as TRL 1.16 computes them."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from alignzoo_zoo.a2po.losses import optimal_values, regression_loss

NAN = math.nan


def test_the_value_by_hand():
    # beta = 1/2: V* = ln((e^2 + 1) / 2) / 2 = 0.7168904. What has no reward is not counted.
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, NAN], [NAN, NAN]], dtype=torch.float64)
    values = optimal_values(rewards, 0.5).tolist()
    assert values[:3] == pytest.approx([0.7168904, 0.0, 1.0], abs=1e-7)
    assert math.isnan(values[3])


def test_the_value_lies_between_the_mean_and_the_best():
    rewards = torch.tensor([[1.0, 0.0, 0.2, 0.4]], dtype=torch.float64)
    assert optimal_values(rewards, 1e4).item() == pytest.approx(0.4, abs=1e-4)
    assert optimal_values(rewards, 1e-3).item() == pytest.approx(1.0, abs=2e-3)


def test_the_regression_by_hand():
    # (0.1 * 3 - 0.5)^2 = 0.04, dL/dx = 2 * -0.2 * 0.1.
    log_ratio = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    loss = regression_loss(log_ratio, torch.tensor([0.5]), 0.1)
    loss.sum().backward()
    assert (loss.item(), log_ratio.grad.item()) == pytest.approx((0.04, -0.04))


def test_the_optimal_policy_has_no_loss():
    reference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    rewards, beta = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64), 0.4
    optimum = reference * (rewards / beta).exp()
    value = beta * optimum.sum().log()  # V* with the exact mean in place of samples
    log_ratio = (optimum / optimum.sum() / reference).log()
    assert regression_loss(log_ratio, rewards - value, beta).max() < 1e-20


def test_the_loss_is_that_of_trl():
    trainer_class = pytest.importorskip("trl.experimental.a2po").A2POTrainer
    log_ratio, rewards = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([1.0, 0.0, 1.0])
    value = optimal_values(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), 0.5)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(beta2=0.1),
        _metrics={"train": defaultdict(list)},
        _get_sequence_logps=lambda *_: log_ratio - 7.0,
    )
    inputs = defaultdict(lambda: None)
    inputs |= {"ref_logps": torch.full((3,), -7.0), "rewards": rewards, "v_star": value}
    theirs = trainer_class.compute_loss(trainer, None, inputs)
    ours = regression_loss(log_ratio, rewards - value, 0.1).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)

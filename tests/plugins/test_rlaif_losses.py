"""The loss of soft labels by hand, and its slope."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo.functional import sigmoid_loss
from alignzoo_zoo.pairs import order_pair


def soft_label_loss(margin: torch.Tensor, label: torch.Tensor, beta: float) -> torch.Tensor:
    return sigmoid_loss(margin, beta, smoothing=1 - label)


def loss(margin: float, label: float, beta: float) -> float:
    return float(soft_label_loss(torch.tensor([margin]), torch.tensor([label]), beta))


@pytest.mark.parametrize(
    ("margin", "label", "beta", "expected"),
    [
        (0.0, 0.3, 0.1, 0.693147),  # ln 2, whatever the label
        (2.0, 1.0, 0.5, 0.313262),  # DPO's: ln(1 + e^-1)
        (2.0, 0.0, 0.5, 1.313262),  # the other way round: ln(1 + e) = 1 + ln(1 + e^-1)
        (2.0, 0.75, 0.5, 0.563262),  # 0.75 * 0.313262 + 0.25 * 1.313262
        (-2.0, 0.25, 0.5, 0.563262),  # the same with a and b swapped
    ],
)
def test_by_hand(margin, label, beta, expected):
    assert loss(margin, label, beta) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("label", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("margin", [-3.0, 0.0, 1.7])
def test_the_slope_is_the_difference_of_policy_and_label(margin, label, beta):
    """It is dL/dm = beta (sigmoid(beta m) - p)."""
    m = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([label], dtype=torch.float64)
    soft_label_loss(m, p, beta).sum().backward()
    expected = beta * (1 / (1 + math.exp(-beta * margin)) - label)
    assert float(m.grad) == pytest.approx(expected, abs=1e-12)


def test_the_minimum_is_at_the_certainty_of_the_label():
    p, beta = 0.8, 0.1
    m = torch.tensor([math.log(p / (1 - p)) / beta], dtype=torch.float64, requires_grad=True)
    soft_label_loss(m, torch.tensor([p], dtype=torch.float64), beta).sum().backward()
    assert float(m.grad) == pytest.approx(0, abs=1e-12)


def test_swapping_the_completions_does_not_change_the_loss():
    torch.manual_seed(0)
    margin, label = torch.randn(50), torch.rand(50)
    one, other = (soft_label_loss(s * margin, p, 0.3) for s, p in ((1, label), (-1, 1 - label)))
    torch.testing.assert_close(one, other)


def test_large_margins_stay_finite():
    assert loss(1e4, 0.5, 1.0) == pytest.approx(5000) and loss(1e4, 1.0, 1.0) == 0


def test_the_more_likely_completion_counts_as_chosen():
    won = torch.tensor([True, False])
    preferred, rejected = order_pair(won, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert preferred.tolist() == [1.0, 4.0] and rejected.tolist() == [3.0, 2.0]

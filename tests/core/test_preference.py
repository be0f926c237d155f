"""Losses on pairs, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alignzoo.functional import best_and_worst, hinge_loss, ipo_loss, sigmoid_loss

NAN = float("nan")


def gradient(loss, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(x).sum(), x)
    return found


def test_the_logistic_loss():
    # log(1 + exp(-beta margin)) with beta margin = 0, ln 3 and -ln 3:
    # log 2, log(1 + 1/3) = log(4/3), log(1 + 3) = log 4.
    margin = torch.tensor([0.0, math.log(3), -math.log(3)], dtype=torch.float64) / 0.5
    expected = [math.log(2), math.log(4 / 3), math.log(4)]
    assert sigmoid_loss(margin, 0.5).tolist() == pytest.approx(expected)
    # dL/dm = -beta sigmoid(-beta m): -1/2 times 1/2, 1/4 and 3/4.
    assert gradient(lambda m: sigmoid_loss(m, 0.5), margin).tolist() == pytest.approx(
        [-0.25, -0.125, -0.375]
    )


def test_smoothing_believes_the_other_label_a_little():
    margin = torch.tensor([math.log(3)], dtype=torch.float64)
    # 3/4 log(4/3) + 1/4 log 4
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert sigmoid_loss(margin, 1.0, 0.25).item() == pytest.approx(expected)
    # sigmoid(m) = 3/4 is just what the labels say: there is no gradient.
    assert gradient(lambda m: sigmoid_loss(m, 1.0, 0.25), margin).item() == pytest.approx(0.0)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1)])
def test_a_soft_label_is_one_per_pair(shape):
    with pytest.raises(ValueError, match=r"a number or \[B\]"):
        sigmoid_loss(torch.zeros(2), 0.1, torch.zeros(shape))


def test_the_hinge():
    # 1 - 0.1 margin, and nothing from a margin of 10 on.
    margin = torch.tensor([-5.0, 0.0, 4.0, 10.0, 20.0], dtype=torch.float64)
    assert hinge_loss(margin, 0.1).tolist() == pytest.approx([1.5, 1.0, 0.6, 0.0, 0.0])


def test_ipo():
    # The target 1 / (2 beta) is 2: (0 - 2)^2 and (5 - 2)^2, slopes 2 (m - 2).
    margin = torch.tensor([0.0, 5.0], dtype=torch.float64)
    assert ipo_loss(margin, 0.25).tolist() == [4.0, 9.0]
    assert gradient(lambda m: ipo_loss(m, 0.25), margin).tolist() == [-4.0, 6.0]


def test_margins_far_out_are_finite():
    margin = torch.tensor([-1e4, 1e4])
    assert sigmoid_loss(margin, 0.1).tolist() == pytest.approx([1000.0, 0.0])
    assert gradient(lambda m: sigmoid_loss(m, 0.1), margin).isfinite().all()


def test_best_and_worst():
    rewards = [
        [0.0, 2.0, 1.0],
        [3.0, 3.0, 3.0],  # tied: no pair
        [5.0, 5.0, 1.0],  # the first of two best
        [1.0, 5.0, 1.0],  # the first of two worst
        [NAN, 2.0, -1.0],
        [NAN, 2.0, 2.0],
        [NAN, 2.0, NAN],
        [NAN, NAN, NAN],
    ]
    assert best_and_worst(torch.tensor(rewards)).tolist() == [
        [-1.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
        [1.0, 0.0, -1.0],
        [-1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
    ]

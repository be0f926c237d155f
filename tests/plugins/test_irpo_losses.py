"""Iterative reasoning DPO: which completions are paired, and the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo_zoo.irpo.losses import irpo_loss, pair_up


def test_correct_and_wrong_ones_are_taken_in_turn():
    # Correct are 1, 3 and 4, wrong 0 and 2; the fourth pair begins both again, one of them early.
    rewards = [0.0, 1.0, 0.0, 1.0, 1.0]
    assert pair_up(rewards, 0.5, 4) == [(1, 0), (3, 2), (4, 0), (1, 2)]
    assert pair_up(rewards, 0.5, 1) == [(1, 0)]


def test_no_pair_comes_twice():
    assert pair_up([1.0, 0.0, 1.0, 0.0], 0.5, 10) == [(0, 1), (2, 3)]
    assert len(set(pair_up([1.0, 0.0, 1.0, 0.0, 1.0], 0.5, 10))) == 6


@pytest.mark.parametrize("rewards", [[1.0, 1.0], [0.0, 0.4], [math.nan, 1.0], [math.nan] * 2])
def test_a_prompt_without_both_kinds_gives_no_pair(rewards):
    assert pair_up(rewards, 0.5, 4) == []


def test_the_threshold_is_the_smallest_reward_of_a_correct_one():
    assert pair_up([2.0, 1.9, math.nan], 2.0, 4) == [(0, 1)]


def test_irpo_by_hand():
    # beta margin = 0.2 * 2 = 0.4: -log sigmoid = 0.5130153 and a slope of -0.2 * 0.4013123;
    # 0.7 * 1.5 for the likelihood.
    margin, mean = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (2.0, -1.5))
    loss = irpo_loss(margin, 0.2, mean, 0.7)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5130153 + 1.05, abs=1e-7)
    assert margin.grad.item() == pytest.approx(-0.0802625, abs=1e-7)
    assert mean.grad.item() == pytest.approx(-0.7)

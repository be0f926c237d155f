"""SPPO's loss and its win rates, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.functional import sigmoid_loss
from alignzoo_zoo.dpo.losses import sppo_hard_loss
from alignzoo_zoo.sppo.algorithm import SPPO
from alignzoo_zoo.sppo.losses import bradley_terry_win_rates, sppo_loss

NAN = float("nan")


def test_the_loss_is_a_square_for_each_completion():
    # eta 10. The target of P = 0.8 is a log-ratio of 3, of P = 1/2 0, of P = 0.1 -4.
    log_ratio = torch.tensor([0.0, 3.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    win_rate = torch.tensor([0.8, 0.8, 0.5, 0.1], dtype=torch.float64)
    loss = sppo_loss(log_ratio, win_rate, 10.0)
    assert loss.tolist() == pytest.approx([9.0, 0.0, 4.0, 9.0])
    loss.sum().backward()
    assert log_ratio.grad.tolist() == pytest.approx([-6.0, 0.0, 4.0, 6.0])  # 2 (log-ratio - target)


def test_certain_wins_and_losses_give_the_hard_loss_of_dpo():
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    beta = 0.2
    ours = sppo_loss(chosen, torch.ones(16), 1 / beta) + sppo_loss(
        rejected, torch.zeros(16), 1 / beta
    )
    assert torch.allclose(ours, sppo_hard_loss(chosen, rejected, beta))


def test_win_rates_by_the_bradley_terry_model():
    # sigmoid(2 (r - r')) for r = 0, ln(3) / 2, ln 3: differences ln 3 and 2 ln 3 give 3/4 and 9/10.
    rewards = torch.tensor([[0.0, math.log(3) / 2, math.log(3)]], dtype=torch.float64)
    expected = [(0.25 + 0.1) / 2, (0.75 + 0.25) / 2, (0.9 + 0.75) / 2]
    assert bradley_terry_win_rates(rewards, 2.0)[0].tolist() == pytest.approx(expected)


def test_ties_are_even_and_completions_without_a_reward_are_no_opponents():
    rewards = torch.tensor([[2.0, 2.0, 2.0], [1.0, NAN, 0.0], [1.0, NAN, NAN]])
    tied, two, one = bradley_terry_win_rates(rewards, 1.0)
    assert tied.tolist() == [0.5, 0.5, 0.5]
    p = 1 / (1 + math.exp(-1))
    assert two[[0, 2]].tolist() == pytest.approx([p, 1 - p]) and two[1].isnan()
    assert one.isnan().all()


def test_rewards_far_apart_give_certain_wins():
    rewards = torch.tensor([[-1e8, 0.0, 1e8]])
    assert bradley_terry_win_rates(rewards, 3.0).tolist() == [[0.0, 0.5, 1.0]]


def test_sppo_has_a_finite_target_at_margins_where_dpo_is_saturated():
    """At a margin of 40 nats DPO with beta 1 has no gradient; SPPO's targets are 4 and -4."""
    log_ratio = torch.tensor([20.0, -20.0], dtype=torch.float64, requires_grad=True)
    sigmoid_loss(log_ratio[:1] - log_ratio[1:], 1.0).sum().backward()
    assert log_ratio.grad.abs().max() < 1e-15
    log_ratio.grad = None
    sppo_loss(log_ratio, torch.tensor([0.9, 0.1]), 10.0).sum().backward()
    assert log_ratio.grad.tolist() == pytest.approx([32.0, -32.0])


def test_an_unchanged_completion_counts_as_wrong_in_sppo():
    batch = collate([Example([1], [[2], [3], [4], [5]]), Example([1], [[2], [3], [4], [5]])])
    batch.columns["win_rate"] = torch.tensor([0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.5, 0.5])
    batch.columns["opponent"] = torch.zeros(8, 1)
    logprobs = torch.tensor([0.0, 0.0, 0.2, -0.2, -0.2, 0.2, 0.3, 0.0])[:, None]
    outputs = SimpleNamespace(logprobs=logprobs, entropy=torch.zeros(8, 1))
    run = SimpleNamespace(policy=lambda *_, **__: outputs, temperature=1.0)
    total, count = SPPO().alignzoo_loss(run, batch).metrics["rewards/accuracies"]
    assert (float(total), float(count)) == (2.0, 6.0)  # of the decided ones, two moved rightly

"""The reward model's loss and calibration against numbers worked out by hand, and against TRL."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from alignzoo import Batch, Example, collate
from alignzoo_zoo.reward.algorithm import Reward
from alignzoo_zoo.reward.losses import (
    bradley_terry_loss,
    brier_scores,
    centring_loss,
    expected_calibration_error,
)


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_bradley_terry_value_and_gradient_by_hand():
    # 2.0 - 0.5 - 0.5 = 1: L = ln(1 + e^-1) = 0.3132617, dL/dchosen = -sigmoid(-1) = -0.2689414.
    # -1.0 - 0.5 - 0 = -1.5: L = ln(1 + e^1.5) = 1.7014133, dL/dchosen = -0.8175745.
    chosen, rejected = leaf(2.0, -1.0), leaf(0.5, 0.5)
    loss = bradley_terry_loss(chosen, rejected, torch.tensor([0.5, 0.0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.3132617, 1.7014133], abs=1e-7)
    assert chosen.grad.tolist() == pytest.approx([-0.2689414, -0.8175745], abs=1e-7)
    assert rejected.grad.tolist() == pytest.approx([0.2689414, 0.8175745], abs=1e-7)


def test_a_soft_label_by_hand():
    # d = 1, p = 0.8: 0.8 * 0.3132617 + 0.2 * 1.3132617 = 0.5132617, slope sigmoid(1) - 0.8.
    # d = ln 4 has the odds of p = 0.8: slope 0, value 0.8 ln 1.25 + 0.2 ln 5 = 0.5004024.
    chosen = leaf(1.5, math.log(4))
    loss = bradley_terry_loss(
        chosen, torch.zeros(2), torch.tensor([0.5, 0.0]), torch.tensor([0.8, 0.8])
    )
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.5132617, 0.5004024], abs=1e-6)
    assert chosen.grad.tolist() == pytest.approx([0.7310586 - 0.8, 0.0], abs=1e-6)


def test_a_row_says_how_sure_it_is():
    rows = [{"chosen_probability": 0.8}, {}]
    batch = collate([Example([1, 2], [[3, 4], [5]], row=row) for row in rows])
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0])
    loss = Reward(0.0).alignzoo_loss(SimpleNamespace(scores=lambda batch: rewards), batch)
    assert loss.sum.item() == pytest.approx(0.5132617 + 0.3132617, abs=1e-6)


def test_centring_value_and_gradient_by_hand():
    # (2 + 0.5)^2 = 6.25, slope 2 * 2.5 = 5 on both; (-1 + 1)^2 = 0.
    chosen, rejected = leaf(2.0, -1.0), leaf(0.5, 1.0)
    loss = centring_loss(chosen, rejected)
    loss.sum().backward()
    assert loss.tolist() == [6.25, 0.0]
    assert chosen.grad.tolist() == rejected.grad.tolist() == [5.0, 0.0]


@pytest.mark.parametrize(("margin", "loss", "slope"), [(50.0, 0.0, 0.0), (-50.0, 50.0, -1.0)])
def test_extreme_rewards_stay_finite(margin, loss, slope):
    chosen = torch.tensor([margin], requires_grad=True)
    value = bradley_terry_loss(chosen, torch.zeros(1), torch.zeros(1))
    value.sum().backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-6)


def test_brier_by_hand():
    # sigmoid(ln 3) = 3/4: (1/4)^2; a margin of 0 says one half: 1/4; sigmoid(-ln 3): (3/4)^2.
    margins = torch.tensor([math.log(3), 0.0, -math.log(3), 50.0, -50.0])
    assert brier_scores(margins).tolist() == pytest.approx([0.0625, 0.25, 0.5625, 0.0, 1.0])


def test_calibration_error_by_hand():
    # Confidences 3/4 (right), 3/4 (wrong), 9/10 (right), 9/10 (right), in two bins of five:
    # |1/2 - 3/4| * 2/4 + |1 - 9/10| * 2/4 = 0.175. In one bin: |3/4 - 0.825| = 0.075.
    margins = torch.tensor([math.log(3), -math.log(3), math.log(9), math.log(9)])
    assert expected_calibration_error(margins, bins=5) == pytest.approx(0.175, abs=1e-6)
    assert expected_calibration_error(margins, bins=1) == pytest.approx(0.075, abs=1e-6)
    assert expected_calibration_error(torch.tensor([60.0, 60.0])) == pytest.approx(0.0)


def pairs() -> Batch:
    rows = [{"margin": 0.7}, {}, {"margin": 2.0}]
    return collate([Example([1, 2], [[3, 4, 5], [6]], row=row) for row in rows])


REWARDS = [2.0, 0.5, -1.5, 0.25, 50.0, -50.0]  # chosen and rejected by turns


@pytest.mark.parametrize("coefficient", [0.0, 0.05])
def test_agrees_with_trl(coefficient):
    trainer = pytest.importorskip("trl.trainer.reward_trainer").RewardTrainer
    ours = torch.tensor(REWARDS, requires_grad=True)
    run = SimpleNamespace(scores=lambda batch: ours)
    loss = Reward(coefficient).alignzoo_loss(run, pairs())
    (loss.sum / loss.count).backward()

    theirs = torch.tensor(REWARDS, requires_grad=True)
    logits = torch.cat([theirs[0::2], theirs[1::2]])[:, None]
    identity = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=coefficient or None),
        accelerator=identity,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.ones(6, 3, dtype=torch.long),
        "attention_mask": torch.ones(6, 3, dtype=torch.long),
        "margin": torch.tensor([0.7, 0.0, 2.0]),
    }

    def model(**_):
        return SimpleNamespace(logits=logits)

    expected = trainer.compute_loss(stub, model, inputs)
    expected.backward()
    assert loss.mean == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=0)
    for name, (total, count) in loss.metrics.items():
        known = {"rewards/margins": "margin", "rewards/accuracies": "accuracy"}.get(name)
        if known:
            assert float(total / count) == pytest.approx(stub._metrics["train"][known][0])

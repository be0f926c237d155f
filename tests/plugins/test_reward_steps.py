"""Rewards of steps against numbers worked out by hand, NumPy, and a two-class head."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.loss.loss_utils import ForTokenClassification

from alignzoo import BadInput, Example, Steps, collate
from alignzoo_zoo.reward.algorithm import Reward
from alignzoo_zoo.reward.losses import step_loss
from alignzoo_zoo.reward.steps import evaluate_steps


def test_value_and_gradient_by_hand():
    # y = 1, r = 1: ln(1 + e^-1) = 0.3132617, slope sigmoid(1) - 1 = -0.2689414.
    # y = 0, r = 1: ln(1 + e) = 1.3132617, slope sigmoid(1) = 0.7310586. r = 0: ln 2, slope 1/2.
    scores = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    loss = step_loss(scores, torch.tensor([True, False, False]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.3132617, 1.3132617, math.log(2)], abs=1e-7)
    assert scores.grad.tolist() == pytest.approx([-0.2689414, 0.7310586, 0.5], abs=1e-7)


@pytest.mark.parametrize(
    ("score", "label", "loss", "slope"),
    [(50.0, True, 0.0, 0.0), (-50.0, True, 50.0, -1.0), (50.0, False, 50.0, 1.0),
     (-50.0, False, 0.0, 0.0)],
)  # fmt: skip
def test_extreme_scores_stay_finite(score, label, loss, slope):
    scores = torch.tensor([score], requires_grad=True)
    value = step_loss(scores, torch.tensor([label]))
    value.sum().backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert scores.grad.item() == pytest.approx(slope, abs=1e-6)


def solutions():
    """Three, two and one steps, with one masked token."""
    return collate(
        [
            Example([1], [[2, 3, 4, 5, 6]], masks=[[False, True, True, False, True]],
                    columns={"labels": [[False, True, False, False, True]]}),
            Example([1, 2], [[3, 4]], masks=[[True, True]], columns={"labels": [[True, True]]}),
            Example([1], [[7, 8, 9]], masks=[[False, False, True]],
                    columns={"labels": [[True, True, False]]}),
        ]
    )  # fmt: skip


SCORES = [[9.0, 0.5, -1.5, 7.0, 50.0], [-50.0, 2.0, 0.0, 0.0, 0.0], [-3.0, 4.0, -0.25, 0.0, 0.0]]


def run_with(scores: torch.Tensor):
    return SimpleNamespace(
        scores=lambda batch, per_token: scores, held_out=lambda: iter([solutions()])
    )


def test_the_sum_and_its_gradient_by_numpy():
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    loss = Reward(loss_type="steps").alignzoo_loss(run_with(scores), solutions())
    loss.sum.backward()
    steps = [(0, 1, 1), (0, 2, 0), (0, 4, 1), (1, 0, 1), (1, 1, 1), (2, 2, 0)]
    expected, slopes = 0.0, np.zeros((3, 5))
    for n, t, y in steps:
        r = np.float64(SCORES[n][t])
        expected += np.logaddexp(0.0, -r) if y else np.logaddexp(0.0, r)
        slopes[n, t] = 1 / (1 + np.exp(-r)) - y
    assert loss.count == 6
    assert loss.sum.item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(scores.grad.numpy(), slopes, atol=1e-12)
    assert not scores.grad[~solutions().mask].any()
    total, count = loss.metrics["steps/accuracy"]
    assert (float(total), int(count)) == (5, 6)  # all but the step at -50


def test_agrees_with_a_two_class_head():
    """The loss of a token classifier, the model of TRL's PRM trainer, with logits (0, r)."""
    batch = solutions()
    ours = torch.tensor(SCORES, requires_grad=True)
    loss = Reward(loss_type="steps").alignzoo_loss(run_with(ours), batch)
    (loss.sum / loss.count).backward()
    theirs = torch.tensor(SCORES, requires_grad=True)
    logits = torch.stack([torch.zeros_like(theirs), theirs], dim=-1)
    labels = torch.where(batch.mask, batch["labels"].long(), -100)
    expected = ForTokenClassification(
        logits, labels, config=SimpleNamespace(num_labels=2), ignore_index=-100
    )
    expected.backward()
    assert loss.mean == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


def test_the_evaluation_by_hand():
    found = evaluate_steps(run_with(torch.tensor(SCORES)))
    assert found["held-out/steps/accuracy"] == [1, 1, 1, 0, 1, 1]
    assert found["held-out/steps/majority"] == pytest.approx(4 / 6)
    # Of the solutions only the second is right; it is taken for wrong because of one step.
    assert found["held-out/solutions/accuracy"] == [1, 0, 1]
    assert found["held-out/solutions/majority"] == pytest.approx(2 / 3)
    # 1 - sigmoid of 0.5, 1.5, 50, -50, 2, 0.25, squared
    brier = [0.1425369, 0.0332792, 0.0, 1.0, 0.0142092, 0.1916894]
    assert found["calibration/brier"] == pytest.approx(brier, abs=1e-6)


def test_the_mode_chooses_the_view():
    assert Reward().data.name == "preferences"
    steps = Reward(loss_type="steps", step_separator=r"\n\n")
    assert issubclass(steps.data, Steps) and steps.data.separator == "\n\n"
    assert steps.progress_metric == "steps/accuracy"
    assert Reward.data.name == "preferences" and Reward.progress_metric == "rewards/accuracies"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_separator": ";"}, "--step-separator: --loss-type pairs does not read it"),
        (
            {"loss_type": "steps", "center_rewards_coefficient": 0.0},
            "--center-rewards-coefficient: --loss-type steps does not read it",
        ),
    ],
)
def test_an_option_of_the_other_mode_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        Reward(**options)

"""RAFT's selection by hand, and its loss."""

from __future__ import annotations

import pytest
import torch
from on_policy_fakes import make_batch, policy_logprobs, run_around

from alignzoo import BadInput
from alignzoo_zoo.raft.algorithm import RAFT
from alignzoo_zoo.raft.selection import at_least, best_of_each

NAN = float("nan")


def test_the_best_of_each_group():
    # Of ties the first. A group without a reward has no best completion.
    rewards = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0], [NAN, -5.0, NAN], [NAN, NAN, NAN]])
    assert best_of_each(rewards).int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_completions_above_the_threshold():
    rewards = torch.tensor([0.9, 1.0, 1.5, NAN])
    assert at_least(rewards, 1.0).tolist() == [False, True, True, False]


def test_the_loss_is_the_mean_over_the_kept_tokens():
    """Every token in the mask has the gradient -1 in the sum, which is divided by their number."""
    batch = make_batch()
    logprobs = policy_logprobs(batch)
    loss = RAFT().alignzoo_loss(run_around(logprobs), batch)
    assert loss.sum.item() == pytest.approx(-logprobs[batch.mask].sum().item())
    assert loss.count == batch.mask.sum() == 16
    loss.sum.backward()
    assert torch.equal(logprobs.grad, -batch.mask.double())


@pytest.mark.parametrize("options", [{"keep": "threshold"}, {"threshold": 1.0}])
def test_a_threshold_needs_keep_threshold(options):
    with pytest.raises(BadInput, match="--threshold"):
        RAFT(**options)

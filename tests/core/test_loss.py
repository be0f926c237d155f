"""Sums and counts."""

from __future__ import annotations

import pytest
import torch

from alignzoo.loss import Loss


def test_per_sequence_counts_sequences():
    loss = Loss.per_sequence(torch.tensor([1.0, 2.0, 6.0]), {"margin": torch.tensor([0.0, 1.0])})
    assert (float(loss.sum), int(loss.count), loss.mean) == (9.0, 3, 3.0)
    total, count = loss.metrics["margin"]
    assert (float(total), int(count)) == (1.0, 2)


def test_per_token_counts_masked_tokens_only():
    values = torch.tensor([[1.0, 2.0], [4.0, float("nan")]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss = Loss.per_token(values, mask, {"entropy": torch.tensor([[1.0, 1.0], [4.0, 9.0]])})
    assert (float(loss.sum.detach()), int(loss.count)) == (7.0, 3)
    assert float(loss.metrics["entropy"][0]) == 6.0
    loss.sum.backward()
    # What is masked away has no gradient, not even NaN times zero.
    assert values.grad.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ"):
        Loss.per_token(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool))

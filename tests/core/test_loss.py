"""Sums and counts."""

from __future__ import annotations

import pytest
import torch

from alignzoo.loss import Loss, Totals


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


@pytest.mark.parametrize(
    ("values", "mask"), [((2, 3), (2, 2)), ((2, 2), (2,)), ((2,), (2, 2)), ((2,), (2,))]
)
def test_a_value_per_token_and_its_mask_have_one_shape(values, mask):
    with pytest.raises(ValueError, match=r"both \[N, T\]"):
        Loss.per_token(torch.zeros(values), torch.zeros(mask, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(), (2, 2), (2, 1)])
def test_a_value_per_sequence_has_one_dimension(shape):
    with pytest.raises(ValueError, match=r"per sequence is \[n\]"):
        Loss.per_sequence(torch.zeros(shape))


def test_totals_are_those_of_one_loss_over_all_micro_batches():
    x = torch.tensor([1.0, 2.0, 6.0, 7.0], requires_grad=True)
    totals = Totals()
    for part in (x[:1], x[1:]):
        totals.add(Loss.per_sequence(part, {"margin": part, "none": part[:0]}), n=len(part))
    assert totals.means() == {"loss": 4.0, "margin": 4.0}
    assert (totals.n, totals.counts["none"]) == (4, 0)
    assert Totals().means() == {}

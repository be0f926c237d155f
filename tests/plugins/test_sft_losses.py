"""The loss of supervised fine-tuning, by hand."""

from __future__ import annotations

import pytest
import torch

from alignzoo import Loss
from alignzoo_sft.losses import cross_entropy


def test_mean_over_the_tokens_that_count():
    # Tokens of probability 1/2, 1/4, 1/8; the last is masked: (ln 2 + ln 4) / 2 = 1.0397208.
    logprobs = torch.tensor([[0.5, 0.25, 0.125]]).log().requires_grad_()
    loss = Loss.per_token(cross_entropy(logprobs), torch.tensor([[True, True, False]]))
    assert loss.mean == pytest.approx(1.0397208, abs=1e-6)
    loss.sum.backward()
    assert logprobs.grad.tolist() == [[-1.0, -1.0, 0.0]]

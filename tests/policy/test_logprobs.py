"""The head in chunks against all logits at once."""

from __future__ import annotations

import pytest
import torch

from alignzoo.policy import logprobs
from alignzoo.policy.logprobs import chunked_logprobs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(logprobs, "CPU_CHUNK", 1)
    monkeypatch.setattr(logprobs, "MIN_ROWS", 2)


def inputs(bias: bool, frozen: bool):
    draw = torch.Generator().manual_seed(0)
    hidden, weight, offset = (
        torch.randn(*shape, dtype=torch.float64, generator=draw) for shape in ((5, 4), (7, 4), (7,))
    )
    targets = torch.tensor([0, 6, 3, 3, 1])
    return (
        hidden.requires_grad_(),
        weight.requires_grad_(not frozen),
        offset.requires_grad_(not frozen) if bias else None,
        targets,
    )


def plain(hidden, weight, targets, bias, temperature, softcap):
    z = hidden @ weight.t()
    z = z if bias is None else z + bias
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    logp = (z / temperature).log_softmax(-1)
    p = logp.exp()
    return logp.gather(1, targets[:, None]).squeeze(1), -(p * logp).sum(1), p.square().sum(1).log()


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(("bias", "frozen"), [(True, True), (True, False), (False, False)])
def test_values_and_gradients(bias, frozen, temperature, softcap):
    hidden, weight, offset, targets = inputs(bias, frozen)
    got = chunked_logprobs(hidden, weight, targets, offset, temperature, softcap, True, True)
    expected = plain(hidden, weight, targets, offset, temperature, softcap)
    torch.testing.assert_close(got, expected)
    assert not got[2].requires_grad
    leaves = [x for x in (hidden, weight, offset) if x is not None and x.requires_grad]
    for keep in ([0], [1], [0, 1]):  # log-probs alone, entropy alone, both
        weights = torch.arange(1.0, 6.0, dtype=torch.float64)
        grads = [
            torch.autograd.grad(
                sum((out[i] * weights).sum() for i in keep), leaves, retain_graph=True
            )
            for out in (got, expected)
        ]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("frozen", [True, False])
def test_gradcheck(frozen):
    hidden, weight, offset, targets = inputs(True, frozen)
    assert torch.autograd.gradcheck(
        lambda *x: chunked_logprobs(x[0], x[1], targets, x[2], 0.7, 2.0, True)[:2],
        (hidden, weight, offset),
    )


def test_nothing_more_than_is_asked():
    hidden, weight, _, targets = inputs(False, True)
    assert chunked_logprobs(hidden, weight, targets)[1:] == (None, None)
    entropy, log_sum_p2 = chunked_logprobs(hidden, weight, targets, log_sum_p2=True)[1:]
    assert entropy is None
    assert log_sum_p2.shape == targets.shape


def test_float32_and_huge_logits():
    hidden, weight, _, targets = inputs(False, True)
    found = chunked_logprobs(
        (hidden * 1e4).float(), weight.float(), targets, entropy=True, log_sum_p2=True
    )
    for values in found:
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()


def test_bfloat16_logits_are_not_rounded():
    hidden, weight, _, targets = inputs(False, True)
    half, matrix = hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = chunked_logprobs(half, matrix, targets)[0]
    expected = plain(half.float(), matrix.float(), targets, None, 1.0, None)[0]
    torch.testing.assert_close(got, expected)
    got.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_no_rows():
    _, weight, _, _ = inputs(False, True)
    got = chunked_logprobs(weight.new_zeros(0, 4), weight, torch.zeros(0, dtype=torch.long))[0]
    assert got.shape == (0,)

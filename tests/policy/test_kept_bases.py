"""A process that keeps bases loads each of them once, and hands out copies of it."""

import pytest
import torch

from alignzoo.batch import Example, collate
from alignzoo.policy import ModelSpec, kept_bases, load_policy, weights

BATCH = collate([Example([5, 6, 7], [[8, 9], [10]])])


@pytest.fixture
def loads(monkeypatch):
    """Count the bases that are read from files, by a process that keeps them."""
    monkeypatch.setattr(kept_bases, "_kept", kept_bases._Kept(enabled=True))
    found = []
    plain = weights.Weights._plain

    def counted(self, *args):
        found.append(self.source.base)
        return plain(self, *args)

    monkeypatch.setattr(weights.Weights, "_plain", counted)
    return found


def logprobs(policy):
    with torch.no_grad():
        return policy(BATCH).logprobs


def test_a_base_is_read_once_and_its_copies_are_equal_and_apart(loads):
    first = load_policy(ModelSpec("zoo-tiny", adapter="none"))
    second = load_policy(ModelSpec("zoo-tiny", adapter="none"))
    assert len(loads) == 1
    before = logprobs(second)
    assert torch.equal(logprobs(first), before)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1)
    assert torch.equal(logprobs(second), before)
    assert torch.equal(logprobs(load_policy("zoo-tiny")), before)
    assert len(loads) == 1


def test_an_adapter_of_one_run_is_not_in_the_next(loads):
    for kind in ("lora", "ia3"):
        policy = load_policy(ModelSpec("zoo-tiny", adapter=kind))
        assert {kind in type(m).__module__ for m in policy.model.modules()} >= {True}
    plain = load_policy("zoo-tiny")
    assert not any("peft" in type(module).__module__ for module in plain.model.modules())
    assert len(loads) == 1


def test_the_two_bases_that_were_used_last_are_kept(loads):
    names = [("zoo-tiny", "fp32"), ("zoo-critic", "fp32"), ("zoo-tiny", "fp32")]
    for name, precision in names:
        load_policy(ModelSpec(name, precision=precision))
    assert len(loads) == 2
    load_policy(ModelSpec("zoo-tiny", precision="bf16"))  # another base: it drops zoo-critic
    assert len(loads) == 3
    load_policy("zoo-tiny")
    assert len(loads) == 3
    load_policy("zoo-critic")
    assert len(loads) == 4

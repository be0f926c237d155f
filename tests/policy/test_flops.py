"""The ledger's arithmetic against counts by hand."""

from __future__ import annotations

import pytest
import torch
from policy_models import build
from test_policy import llama, load  # noqa: F401  (a fixture)
from torch.utils.flop_counter import FlopCounterMode

from alignzoo.policy import HiddenState
from alignzoo.policy.flops import FlopsProfile, profile


def test_formula():
    flops = FlopsProfile(backbone=10, head=7, width=4, layers=2, trains_base=False)
    assert flops.forward(3, 6, 2) == 2 * 10 * 3 + 4 * 4 * 2 * 6 + 2 * 7 * 2
    assert flops.update(3, 6, 2) == 2 * flops.forward(3, 6, 2)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_matches_what_torch_counts(name):
    model = build(name)
    flops = profile(model, trains_base=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.set_attn_implementation("eager")
        model(torch.arange(20)[None])
    # Eager attention computes the masked half as well.
    assert flops.forward(20, 20 * 20, 20) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_only_active_experts_count():
    dense = profile(build("llama"), True).backbone
    sparse = profile(build("mixtral"), True).backbone
    assert dense < sparse < 2.2 * dense  # two experts of four, and the router


def test_the_cost_of_a_pass(llama, batch):  # noqa: F811
    policy = load(llama)
    work = policy.work(batch)
    assert policy.cost(batch) == (policy.flops.forward(*work), work.tokens)
    assert policy.cost(batch, backward=True) == (policy.flops.update(*work), work.tokens)
    scores = policy.cost(batch, states=HiddenState.OF_TOKEN)
    assert scores.tokens == work.tokens + len(batch.lengths)
    assert policy.cost(batch, shared=False).tokens > work.tokens

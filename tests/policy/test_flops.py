"""The ledger's arithmetic against counts by hand."""

from __future__ import annotations

import pytest
import torch
from policy_models import SIZES, build
from test_policy import llama, load  # noqa: F401  (a fixture)
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma4TextConfig

from alignzoo.batch import Batch, Example, collate
from alignzoo.policy import HiddenState
from alignzoo.policy.flops import AdapterWork, FlopsProfile, Products, profile
from alignzoo.policy.kinds import ADAPTERS


def test_formula():
    flops = FlopsProfile(backbone=10, head=7, width=4, layers=2, trains_base=False)
    assert flops.forward(3, 6, 2) == 2 * 10 * 3 + 4 * 4 * 2 * 6 + 2 * 7 * 2
    assert flops.update(3, 6, 2) == 2 * flops.forward(3, 6, 2)


def test_formula_with_an_adapter():
    own = AdapterWork(Products(token=5, once=100), Products(token=15, once=300))
    flops = FlopsProfile(10, 7, 4, 2, trains_base=False, adapter=own)
    base = flops.without_adapter
    assert flops.forward(3, 6, 2) == base.forward(3, 6, 2) + 2 * (5 * 3 + 100)
    assert flops.update(3, 6, 2) == 2 * base.forward(3, 6, 2) + 2 * (15 * 3 + 300)


@pytest.fixture(scope="module")
def pairs() -> Batch:
    """Eight prompts of 20 to 27 tokens with two completions each: 420 tokens to compute."""
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(20, 200, (count,), generator=draw).tolist()

    return collate([Example(ids(20 + i), [ids(10 + i), ids(14 + i)]) for i in range(8)])


def products(compute) -> float:
    """The FLOPs of matrix products that torch counts; on a CPU it counts no attention."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", [name for name in ADAPTERS if not ADAPTERS[name].four_bit])
def test_every_adapter_against_what_torch_counts(kind, pairs):
    policy = load("zoo-tiny", adapter=kind, lora_rank=16, reference=False)
    policy.train()
    tokens, attended, scored = policy.work(pairs)
    linear = products(lambda: policy(pairs).logprobs.sum().backward())
    if kind == "none":  # the head is computed again for the gradient of its weights
        linear -= 2 * policy.flops.head * scored
    # What is counted too much is the gradient of the first layer's input.
    assert 0.999 * linear < policy.flops.update(tokens, 0, scored) < 1.03 * linear
    with torch.no_grad():
        linear = products(lambda: policy(pairs))
    assert policy.flops.forward(tokens, 0, scored) == linear
    # Scores and their sum over values, 2 * 128 wide each, in four layers, of unmasked pairs alone.
    attention = policy.flops.forward(tokens, attended, scored) - linear
    assert attention == 4 * (2 * 2 * 128) * attended


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt"])
def test_a_reference_without_the_adapter_costs_less(kind, pairs):
    policy = load("zoo-tiny", adapter=kind, reference=True)
    tokens, _, scored = work = policy.work(pairs, reference=True)
    cost = policy.cost(pairs, reference=True)
    assert cost == (policy.flops.without_adapter.forward(*work), tokens)
    assert products(lambda: policy.reference(pairs)) == policy.flops.without_adapter.forward(
        tokens, 0, scored
    )
    with policy.as_reference():
        assert policy.cost(pairs) == cost
    policy.move_reference()
    assert policy.cost(pairs, reference=True) == policy.cost(pairs)


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


def test_heads_that_differ_by_layer():
    sizes = {key: v for key, v in SIZES.items() if key != "initializer_range"}
    config = Gemma4TextConfig(
        **sizes, head_dim=8, num_key_value_heads=2,
        layer_types=["sliding_attention", "full_attention"], global_head_dim=16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    flops = profile(model, trains_base=False)
    assert flops.width * flops.layers == 4 * 8 + 4 * 16

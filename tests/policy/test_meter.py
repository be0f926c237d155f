"""Every forward pass is charged where it is computed, as torch counts it."""

from __future__ import annotations

import copy

import pytest
import torch
from test_flops import attention, pairs, products, wider  # noqa: F401  (fixtures)
from test_policy import load

from alignzoo.ledger import Cost, sum_costs
from alignzoo.policy import HiddenState, Policy
from alignzoo.rollout import Sampling, generate


class Spent:
    """The costs that a policy has charged."""

    def __init__(self, policy: Policy):
        self.costs: list[Cost] = []
        policy.charge_to(self.costs.append)

    def take(self) -> Cost:
        total = sum_costs(self.costs)
        self.costs.clear()
        return total


@pytest.fixture(scope="module", params=["lora", "dora", "none", "wider lora"])
def metered(request) -> tuple[Policy, Spent]:
    kind = request.param.split()[-1]
    model = str(request.getfixturevalue("wider")) if "wider" in request.param else "zoo-tiny"
    policy = load(model, adapter=kind, lora_rank=16, reference=True, values="shared")
    return policy, Spent(policy)


IDS = torch.arange(20, 44).reshape(2, 12)
PAIRS = 2 * 12 * 13 / 2  # of a query and a key that attend, in two rows of 12 tokens


@torch.no_grad()
def test_passes_through_the_network_alone(metered):
    policy, spent = metered
    policy.eval()
    linear = products(lambda: policy.network(IDS))
    assert spent.take() == (linear + attention(policy, PAIRS), 24)
    linear = products(lambda: policy.network(input_ids=IDS, logits_to_keep=1))
    assert spent.take() == (linear + attention(policy, PAIRS), 24)
    # Hidden states go through no head.
    base = policy.network.get_base_model() if hasattr(policy.network, "get_base_model") else None
    backbone = (base or policy.network).model
    embedded = policy.network.get_input_embeddings()(IDS)
    linear = products(lambda: backbone(inputs_embeds=embedded))
    assert spent.take() == (linear + attention(policy, PAIRS), 24)


@torch.no_grad()
def test_padding_is_no_useful_work(metered):
    policy, spent = metered
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0
    policy.network(input_ids=IDS, attention_mask=mask, logits_to_keep=1)
    tokens, attended = 7 + 12, 7 * 8 / 2 + 12 * 13 / 2
    assert spent.take() == (pytest.approx(policy.flops.forward(tokens, attended, 2)), tokens)


def test_an_update_through_the_network(metered):
    policy, spent = metered
    policy.train()
    linear = products(lambda: policy.network(IDS).logits.sum().backward())
    cost = spent.take()
    # What is counted too much is the gradient of the first layer's input.
    factor = 3 if policy.flops.trains_base else 2
    assert 0.999 * linear < cost.flops - factor * attention(policy, PAIRS) < 1.04 * linear
    for _, parameter in policy.named_parameters():
        parameter.grad = None


def test_beams_of_transformers(metered):
    """Three beams of two prompts: a prompt counts for each beam, as transformers computes it."""
    policy, spent = metered
    policy.eval()
    linear = products(
        lambda: policy.network.generate(
            input_ids=IDS,
            attention_mask=torch.ones_like(IDS),
            num_beams=3,
            do_sample=False,
            max_new_tokens=4,
            min_new_tokens=4,
            pad_token_id=0,
        )
    )
    flops, tokens = spent.take()
    assert tokens in (2 * 3 * 12 + 6 * 3, 2 * 12 + 6 * 3)
    attended = (tokens - 18) / 12 * 78 + 6 * (13 + 14 + 15)
    assert flops - attention(policy, attended) == linear


@torch.no_grad()
def test_every_method_charges_what_it_computes_once(metered, pairs):  # noqa: F811
    policy, spent = metered
    policy.eval()
    policy(pairs)
    assert spent.take() == policy.cost(pairs)
    policy.reference(pairs)
    assert spent.take() == policy.cost(pairs, reference=True)
    policy.values(pairs)
    assert spent.take() == policy.cost(pairs, lm_head=False)
    sampling, told = Sampling(3, []), []
    generate(policy, [[20, 21]], [0], sampling, charge=lambda _, cost: told.append(cost))
    assert not spent.costs and told
    generate(policy, [[20, 21]], [0], sampling)
    assert spent.take() == (pytest.approx(told[0].flops), told[0].tokens)


def test_a_pass_with_gradient_is_an_update(metered, pairs):  # noqa: F811
    policy, spent = metered
    policy.train()
    policy(pairs)
    assert spent.take() == policy.cost(pairs, backward=True)
    policy.values(pairs)
    assert spent.take() == policy.cost(pairs, lm_head=False, backward=True)


@torch.no_grad()
def test_a_copy_of_the_network_charges_too(metered):
    policy, spent = metered
    copied = copy.deepcopy(policy.network)
    copied(IDS)
    assert spent.take() == (
        pytest.approx(policy.flops.forward(24, PAIRS, 24)), 24
    )  # fmt: skip


@torch.no_grad()
def test_a_covered_pass_is_charged_by_its_caller(metered, pairs):  # noqa: F811
    policy, spent = metered
    with policy.meter.covered():
        policy(pairs)
        policy.network(IDS)
    assert not spent.costs


def test_scores(pairs):  # noqa: F811
    policy = load("zoo-tiny", score_head=True, reference=False)
    spent = Spent(policy)
    policy.scores(pairs)
    assert spent.take() == policy.cost(pairs, states=HiddenState.OF_TOKEN, backward=True)

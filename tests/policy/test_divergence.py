"""The divergence between two models: by hand, against a plain computation, and what it costs."""

from __future__ import annotations

import copy
from itertools import pairwise
from math import log

import pytest
import torch
from policy_models import build
from test_flops import products
from test_policy import load

from alignzoo.errors import BadInput
from alignzoo.policy import DivergenceFrom, generalized_jsd, logprobs, top_k_jsd
from alignzoo.policy.divergence import HeadInputs, chunked_divergence, jsd_slope
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.lm_head import LMHead
from alignzoo.policy.logprobs import LogitTransform
from alignzoo.policy.scoring import LogitsScorer, RowScorer

POLICY, TEACHER = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.25, 0.75]).double()
# (1/2, 1/2) against (1/4, 3/4); the mixture of beta = 1/2 is (3/8, 5/8).
OF_POLICY = (log(4 / 3) + log(4 / 5)) / 2
BY_HAND = {
    0.0: (log(1 / 2) / 4 + 3 * log(3 / 2) / 4, 1 / 4),
    1.0: (log(2) / 2 + log(2 / 3) / 2, (log(2) - log(2) / 2 - log(2 / 3) / 2) / 2),
    0.5: ((log(2 / 3) / 4 + 3 * log(6 / 5) / 4 + OF_POLICY) / 2, (log(4 / 3) - OF_POLICY) / 4),
}


@pytest.mark.parametrize("beta", list(BY_HAND))
def test_value_and_gradient_by_hand(beta):
    logits = POLICY.log().requires_grad_()
    found = generalized_jsd(logits.log_softmax(-1), TEACHER.log(), beta)
    found.backward()
    value, slope = BY_HAND[beta]
    assert found.item() == pytest.approx(value, rel=1e-12)
    assert logits.grad.tolist() == pytest.approx([slope, -slope], rel=1e-9)
    assert jsd_slope(POLICY.log(), TEACHER.log(), beta).tolist() == pytest.approx([slope, -slope])


def test_golden_numbers():
    found = [float(generalized_jsd(POLICY.log(), TEACHER.log(), beta)) for beta in (0, 0.5, 1)]
    assert found == pytest.approx([0.1308121, 0.0338221, 0.1438410], abs=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_equal_models_have_none_and_others_have_some(beta):
    logp = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    other = logp.flip(-1)
    assert generalized_jsd(logp, logp, beta).abs().max() < 1e-6
    assert generalized_jsd(logp, other, beta).min() > 1e-3


@pytest.mark.parametrize("beta", list(BY_HAND))
def test_the_likeliest_token_and_the_rest_by_hand(beta):
    """Of four tokens, of which the likeliest of the teacher has 3/4, and 1/2 under the policy."""
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).double().log().requires_grad_()
    first = logits.log_softmax(-1)[:1]
    found = top_k_jsd(first, torch.tensor([0.75]).double().log(), beta)
    found.backward()
    value, slope = BY_HAND[beta]
    assert found.item() == pytest.approx(value, rel=1e-9)
    # The other three share the slope of the rest by their probabilities.
    assert logits.grad.tolist() == pytest.approx([-slope, slope / 2, slope / 4, slope / 4])


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_more_of_the_likeliest_tokens_come_up_to_the_whole_divergence(beta):
    draw = torch.Generator().manual_seed(0)
    logits, others = torch.randn(2, 5, 9, generator=draw)
    policy, teacher = logits.requires_grad_().log_softmax(-1), others.log_softmax(-1)
    order = teacher.argsort(-1, descending=True)
    whole = generalized_jsd(policy, teacher, beta)
    found = [
        top_k_jsd(policy.gather(-1, order[:, :k]), teacher.gather(-1, order[:, :k]), beta)
        for k in range(1, 10)
    ]
    assert torch.allclose(found[-1], whole, atol=1e-6)
    assert all((less <= more + 1e-5).all() for less, more in pairwise(found))
    assert (found[0] < 0.9 * whole).any()
    [a], [b] = (torch.autograd.grad(x.sum(), logits, retain_graph=True) for x in (found[-1], whole))
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("frozen_head", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere"])
def test_equal_to_plain_logits_with_its_gradient(monkeypatch, batch, name, beta, frozen_head):
    """The head has a cap (gemma2) or a scale (cohere); the teacher is another architecture."""
    monkeypatch.setattr(logprobs, "CPU_CHUNK", 0)
    monkeypatch.setattr(logprobs, "MIN_ROWS", 3)  # several chunks
    model, teacher = build(name), build("gpt2")
    model.get_output_embeddings().weight.requires_grad_(not frozen_head)
    other = copy.deepcopy(model)
    with torch.no_grad():
        hidden = RowScorer(teacher)(batch, ForwardOptions(hidden=True)).hidden
    options = ForwardOptions(
        temperature=0.7, divergence=DivergenceFrom(hidden, LMHead(teacher), beta)
    )
    found = RowScorer(model)(batch, options).divergence
    assert found.shape == batch.tokens.shape

    ours = theirs = torch.zeros(())
    for n, ids in enumerate(batch.completions()):
        b = int(batch.group[n])
        prompt = batch.prompts[b, : batch.prompt_lengths[b]].tolist()
        row = torch.tensor([prompt + ids])
        which = slice(len(prompt) - 1, len(prompt) + len(ids) - 1)
        policy, theirs_at = (
            (each(row, use_cache=False).logits[0, which].float() / 0.7).log_softmax(-1)
            for each in (other, teacher)
        )
        plain = generalized_jsd(policy, theirs_at.detach(), beta)
        assert torch.allclose(found[n, : len(ids)], plain, atol=1e-4)
        assert not found[n, len(ids) :].any()
        weights = torch.randn(len(ids), generator=torch.Generator().manual_seed(n))
        ours = ours + (weights * found[n, : len(ids)]).sum()
        theirs = theirs + (weights * plain).sum()
    ours.backward()
    theirs.backward()
    for (which, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if q.grad is not None:
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4), which


def test_heads_that_pad_one_vocabulary_differently():
    draw = torch.Generator().manual_seed(0)
    hidden, other = torch.randn(4, 6, generator=draw), torch.randn(4, 3, generator=draw)
    weight, wider = torch.randn(9, 6, generator=draw), torch.randn(12, 3, generator=draw)
    weight.requires_grad_()
    policy = HeadInputs(hidden, weight, None, LogitTransform())
    found = chunked_divergence(policy, HeadInputs(other, wider, None, LogitTransform()), 0.5)
    narrow = (hidden @ weight.T).log_softmax(-1), (other @ wider[:9].T).log_softmax(-1)
    plain = generalized_jsd(*narrow, 0.5)
    assert torch.allclose(found, plain, atol=1e-6)
    [ours], [theirs] = (torch.autograd.grad(x.sum(), weight) for x in (found, plain))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_model_without_a_linear_head_is_refused(batch):
    model = build("llama")
    with torch.no_grad():
        hidden = RowScorer(model)(batch, ForwardOptions(hidden=True)).hidden
    options = ForwardOptions(divergence=DivergenceFrom(hidden, LMHead(model), 0.5))
    with pytest.raises(BadInput, match="plain linear layer"):
        LogitsScorer(model)(batch, options)


@torch.no_grad()
def test_both_heads_are_charged(batch):
    policy, teacher = load("zoo-tiny", lora_rank=4), load("zoo-tiny", reference=False)
    hidden = teacher(batch, hidden=True).hidden
    policy.eval()
    spent = []
    policy.charge_to(spent.append)
    theirs = DivergenceFrom(hidden, teacher.lm_head, 0.5)
    linear = products(lambda: policy(batch, divergence=theirs))
    attended = policy.work(batch).attended
    attention = 4 * policy.flops.width * policy.flops.layers * attended
    head = 2 * int(batch.lengths.sum()) * teacher.lm_head.layer.weight.numel()
    # The run charges the teacher's head to the teacher.
    assert [cost.flops - attention for cost in spent] == [linear - head]

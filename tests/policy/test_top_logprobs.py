"""Hidden states and log-probs of several tokens at each position, against a plain forward."""

from __future__ import annotations

import copy

import pytest
import torch
from policy_models import build
from test_flops import products
from test_policy import load

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy import logprobs
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.probe import pick_scorer
from alignzoo.policy.scoring import LogitsScorer, RowScorer, SharedScorer


def plain(model, batch: Batch, temperature: float = 1.0):
    """The last hidden state and all log-probs that predict each token, row by row."""
    hidden, logps = [], []
    for n, ids in enumerate(batch.completions()):
        b = int(batch.group[n])
        prompt = batch.prompts[b, : batch.prompt_lengths[b]].tolist()
        out = model(torch.tensor([prompt + ids]), output_hidden_states=True, use_cache=False)
        which = slice(len(prompt) - 1, len(prompt) + len(ids) - 1)
        hidden.append(out.hidden_states[-1][0, which])
        logps.append((out.logits[0, which].float() / temperature).log_softmax(-1))
    return hidden, logps


CASES = [("llama", SharedScorer), ("gemma2", SharedScorer), ("llama", RowScorer),
         ("llama", LogitsScorer)]  # fmt: skip


@pytest.mark.parametrize("frozen_head", [False, True])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_equal_to_a_plain_forward_with_its_gradient(monkeypatch, batch, name, kind, frozen_head):
    monkeypatch.setattr(logprobs, "CPU_CHUNK", 0)
    monkeypatch.setattr(logprobs, "MIN_ROWS", 3)  # several chunks
    model = build(name)
    other = copy.deepcopy(model)
    if frozen_head:
        for each in (model, other):
            each.get_output_embeddings().weight.requires_grad_(False)
    scorer = pick_scorer(model) if kind is SharedScorer else kind(model)
    assert isinstance(scorer, kind)
    found = scorer(batch, ForwardOptions(temperature=0.7, hidden=True, top_k=4))
    hidden, logps = plain(other, batch, 0.7)
    n, t = batch.tokens.shape
    assert found.hidden.shape == (n, t, hidden[0].shape[-1])
    assert found.top_logprobs.shape == found.top_ids.shape == (n, t, 4)
    assert not found.top_ids.is_floating_point()

    draw = torch.Generator().manual_seed(0)
    ours = theirs = torch.zeros(())
    for i, (states, logp) in enumerate(zip(hidden, logps, strict=True)):
        length = len(states)
        values, ids = logp.topk(4)
        assert torch.allclose(found.hidden[i, :length].float(), states.float(), atol=1e-4)
        assert torch.equal(found.top_ids[i, :length], ids)
        assert torch.allclose(found.top_logprobs[i, :length], values, atol=1e-4)
        assert not found.hidden[i, length:].any() and not found.top_logprobs[i, length:].any()
        a = torch.randn(values.shape, generator=draw)
        b = torch.randn(states.shape, generator=draw)
        ours = ours + (a * found.top_logprobs[i, :length]).sum()
        ours = ours + (b * found.hidden[i, :length]).sum()
        theirs = theirs + (a * values).sum() + (b * states).sum()
    ours.backward()
    theirs.backward()
    for (which, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if q.grad is not None:
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4), which


def test_log_probs_of_the_tokens_that_a_teacher_finds_likeliest(batch):
    student, teacher = load("zoo-tiny", lora_rank=4), load("zoo-tiny", reference=False)
    with torch.no_grad():
        theirs = teacher(batch, top_k=5)
    ours = student(batch, top_ids=theirs.top_ids)
    assert torch.equal(ours.top_ids, theirs.top_ids)
    assert torch.allclose(ours.top_logprobs, theirs.top_logprobs, atol=1e-5)  # B is 0
    assert ours.top_logprobs.requires_grad
    reference = student.reference(batch, top_k=5, hidden=True)
    assert torch.allclose(reference.top_logprobs, theirs.top_logprobs, atol=1e-5)
    assert not reference.top_logprobs.requires_grad and not reference.hidden.requires_grad
    with pytest.raises(BadInput, match="top_ids is"):
        student(batch, top_ids=theirs.top_ids[:, :1])


@torch.no_grad()
def test_the_head_is_charged_for_each_use(batch):
    policy = load("zoo-tiny", lora_rank=4)
    policy.eval()
    spent = []
    policy.charge_to(spent.append)
    linear = products(lambda: policy(batch, top_k=3, hidden=True))
    attended = policy.work(batch).attended
    attention = 4 * policy.flops.width * policy.flops.layers * attended
    assert [cost.flops - attention for cost in spent] == [linear]

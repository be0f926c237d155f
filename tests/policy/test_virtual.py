"""Soft prompts and prefixes: what plain peft makes of them, in every way of scoring."""

from __future__ import annotations

import json

import pytest
import torch
from policy_models import build, configs
from test_policy import (  # noqa: F401  (fixtures)
    folder,
    llama,
    load,
    message,
    run_folder,
    scores,
    train,
)

from alignzoo.batch import Example, collate
from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy import HiddenState, probe, scoring
from alignzoo.policy.adapters import add_adapter
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.kinds import AdapterSettings
from alignzoo.policy.layout import ungroup
from alignzoo.policy.probe import check_virtual, pick_scorer, textbook_logprobs
from alignzoo.policy.virtual import check_prefix, initialize_virtual, virtual_of
from alignzoo.rollout import Sampling, generate

KINDS = ("prompt", "prefix")
COUNT = 5
WINDOWS = ("mistral", "qwen2", "gemma2", "gemma3")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def peft_textbook(policy, batch, path):
    """Log-probs by plain peft and transformers from what was saved."""
    from peft import AutoPeftModelForCausalLM

    policy.save(path)
    plain = AutoPeftModelForCausalLM.from_pretrained(path / "adapter", dtype=torch.float32)
    with torch.no_grad():
        return textbook_logprobs(plain.eval(), batch)


def adapted(name, kind, seed=0):
    """A model of that family with virtual tokens, and its scorer."""
    model = build(name)
    scorer = pick_scorer(model)
    if kind == "prefix":
        check_prefix(model, scorer.shared)
    wrapped = add_adapter(model, kind, AdapterSettings(virtual_tokens=COUNT))
    initialize_virtual(wrapped, seed)
    for name, p in wrapped.named_parameters():
        p.requires_grad_("prompt_encoder" in name)
    return wrapped, scorer, virtual_of(wrapped)


def score(scorer, virtual, batch):
    return scorer(virtual.prepend_to(batch), ForwardOptions(virtual=virtual)).logprobs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", configs())
def test_every_family_as_plain_peft_has_it(name, kind, batch):
    if kind == "prefix" and name in (*WINDOWS, "falcon", "mamba"):
        with pytest.raises(BadInput, match="prefix does not fit"):
            adapted(name, kind)
        return
    wrapped, scorer, virtual = adapted(name, kind)
    for module in wrapped.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    weights = torch.linspace(0.5, 1.5, batch.tokens.numel()).view_as(batch.tokens)
    found = []
    for values in (
        lambda: score(scorer, virtual, batch),
        lambda: textbook_logprobs(wrapped, batch),
    ):
        out = values()
        (grad,) = torch.autograd.grad((out * weights).sum(), [virtual.weight])
        found.append((out.detach(), grad))
    (ours, grad), (theirs, expected) = found
    torch.testing.assert_close(ours, theirs, **CLOSE)
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(grad, expected, atol=1e-5 * max(scale, 1), rtol=1e-4)
    with torch.no_grad():  # and they are seen
        base = scorer(batch).logprobs
    assert (ours - base).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", [scoring.RowScorer, scoring.LogitsScorer])
def test_all_scorers_see_a_soft_prompt(batch, kind):
    model = build("gemma2")
    plain = model.config._attn_implementation
    shared = pick_scorer(model)
    virtual = virtual_of(add_adapter(model, "prompt", AdapterSettings(virtual_tokens=COUNT)))
    asked = ForwardOptions(virtual=virtual)
    expected = score(shared, virtual, batch)
    states = {
        which: shared.states(virtual.prepend_to(batch), which, asked) for which in HiddenState
    }
    model.set_attn_implementation(plain)
    torch.testing.assert_close(score(kind(model), virtual, batch), expected, **CLOSE)
    for which in HiddenState:
        torch.testing.assert_close(
            kind(model).states(virtual.prepend_to(batch), which, asked), states[which], **CLOSE
        )


@torch.no_grad()
def test_both_begin_as_the_same(batch):
    """A prefix is the keys and values of a soft prompt; one of words is the words themselves."""
    found = {}
    for kind in KINDS:
        wrapped, scorer, virtual = adapted("qwen3", kind, seed=3)
        found[kind] = score(scorer, virtual, batch)
    torch.testing.assert_close(found["prompt"], found["prefix"], **CLOSE)
    wrapped, scorer, virtual = adapted("qwen3", "prompt", seed=3)
    ids = [50, 3, 7, 96, 8]
    virtual.weight.copy_(wrapped.get_base_model().get_input_embeddings()(torch.tensor(ids)))
    spoken = [
        Example(ids + batch.prompts[b, : batch.prompt_lengths[b]].tolist(), completions)
        for b, completions in enumerate(completions_of(batch))
    ]
    expected = scorer(collate(spoken)).logprobs
    torch.testing.assert_close(score(scorer, virtual, batch), expected, **CLOSE)


def completions_of(batch):
    return [
        [
            row[:n].tolist()
            for row, n, b in zip(batch.tokens, batch.lengths, batch.group, strict=True)
            if b == group
        ]
        for group in range(len(batch))
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["folder", "llama"])
def test_trained_saved_and_loaded(kind, model, batch, tmp_path, request):
    policy = load(request.getfixturevalue(model), adapter=kind, virtual_tokens=COUNT)
    assert [len(p) for p in policy.parameters()] == [COUNT]
    start = policy.reference(batch).logprobs
    plain = load(request.getfixturevalue(model))
    assert torch.equal(start, plain.reference(batch).logprobs)  # they vanish
    before = scores(policy, batch)
    assert not torch.equal(before, start)
    train(policy, batch, rate=0.5)
    after = scores(policy, batch)
    assert after.sum() > before.sum()
    assert torch.equal(policy.reference(batch).logprobs, start)
    torch.testing.assert_close(peft_textbook(policy, batch, tmp_path), after, **CLOSE)
    left = load(tmp_path / "adapter", adapter=None)
    torch.testing.assert_close(scores(left, batch), after, **CLOSE)
    torch.testing.assert_close(left.reference(batch).logprobs, start, **CLOSE)
    assert left.parameters() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["folder", "llama"])
def test_generation_sees_them(kind, model, request):
    policy = load(request.getfixturevalue(model), adapter=kind, virtual_tokens=COUNT)
    policy.eval()
    prompts = [[3, 4, 5, 6, 7, 8], [9], [5, 6, 7]]
    asked = [1, 2, 3], Sampling(max_new_tokens=7, stop_ids=[])
    for base in (False, True):
        if base:
            with policy.base():
                found = generate(policy, prompts, *asked)
        else:
            found = generate(policy, prompts, *asked)
        batch = collate([Example(p, [c.tokens]) for p, c in zip(prompts, found, strict=True)])
        with torch.no_grad():
            expected = (policy.reference(batch) if base else policy(batch)).logprobs
        drawn = torch.tensor([c.logprobs for c in found])
        torch.testing.assert_close(drawn, expected, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_another(kind, llama, batch, tmp_path):  # noqa: F811
    first = load(llama, adapter=kind, virtual_tokens=COUNT)
    train(first, batch, rate=0.5)
    one = run_folder(tmp_path / "one", first, str(llama), kind)
    expected = scores(first, batch)
    second = load(one, adapter=kind)
    out = second(batch).logprobs
    assert torch.equal(out, second.reference(batch).logprobs)  # DPO starts at ln 2
    torch.testing.assert_close(out, expected, **CLOSE)
    facts = second.reference_facts()
    assert facts != load(llama).reference_facts()  # the first run's tokens are part of it
    train(second, batch, rate=0.5)
    assert second.reference_facts() == facts
    torch.testing.assert_close(second.reference(batch).logprobs, expected, **CLOSE)
    two = run_folder(tmp_path / "two", second, str(one), kind)
    left = load(two, adapter=None)
    torch.testing.assert_close(scores(left, batch), scores(second, batch), **CLOSE)
    torch.testing.assert_close(left.reference(batch).logprobs, expected, **CLOSE)
    third = load(two, adapter=kind)
    torch.testing.assert_close(third.reference(batch).logprobs, scores(second, batch), **CLOSE)
    # What is saved is whole: it needs the base model alone.
    torch.testing.assert_close(
        peft_textbook(second, batch, tmp_path), scores(second, batch), **CLOSE
    )
    for other in ("lora", "none", *set(KINDS) - {kind}):
        assert f"--adapter {kind}" in message(two, adapter=other)


def test_on_top_of_another_adapter(llama, batch, tmp_path):  # noqa: F811
    first = load(llama)
    train(first, batch)
    one = run_folder(tmp_path / "one", first, str(llama), "lora")
    second = load(one, adapter="prompt")
    torch.testing.assert_close(second.reference(batch).logprobs, scores(first, batch), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_the_reference(kind, llama, batch, tmp_path):  # noqa: F811
    policy = load(llama, adapter=kind, virtual_tokens=COUNT)
    assert not policy.mixes_reference
    with pytest.raises(RunFailed, match="mixed"):
        policy.move_reference(0.5)
    train(policy, batch, rate=0.5)
    policy.move_reference()
    now = scores(policy, batch)
    assert torch.equal(policy.reference(batch).logprobs, now)
    train(policy, batch, rate=0.5)
    assert torch.equal(policy.reference(batch).logprobs, now)
    other = load(llama, adapter=kind, virtual_tokens=COUNT)
    other.load_state({name: t.clone() for name, t in policy.state().items()})
    assert torch.equal(other.reference(batch).logprobs, now)
    assert torch.equal(scores(other, batch), scores(policy, batch))

    again = load(run_folder(tmp_path / "run", policy, str(llama), kind), adapter=kind)
    assert again.mixes_reference
    start = dict(again.named_parameters())
    start = {name: p.detach().clone() for name, p in start.items()}
    train(again, batch, rate=0.5)
    again.move_reference(0.25)
    mixed = {name: 0.25 * p.detach() + 0.75 * start[name] for name, p in again.named_parameters()}
    target = load(llama, adapter=kind, virtual_tokens=COUNT)
    target.load_state(mixed)
    torch.testing.assert_close(again.reference(batch).logprobs, scores(target, batch), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_counted_as_tokens(kind, llama, batch):  # noqa: F811
    policy = load(llama, adapter=kind, virtual_tokens=COUNT)
    bare = load(llama)
    assert policy.work(batch).tokens == bare.work(batch).tokens + COUNT * len(batch)
    assert policy.work(batch).scored == bare.work(batch).scored
    assert policy.work(batch, reference=True) == bare.work(batch)
    policy.move_reference()
    assert policy.work(batch, reference=True) == policy.work(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_head_sees_them(kind, folder, batch, tmp_path):  # noqa: F811
    policy = load(folder, adapter=kind, virtual_tokens=COUNT, score_head=True)
    policy.eval()
    with torch.no_grad():
        expected = policy.scores(batch)
        policy.save(tmp_path)
        assert not torch.equal(
            expected, load(folder, score_head=True, reference=False).scores(batch)
        )
        again = load(tmp_path / "adapter", adapter=None)
        torch.testing.assert_close(again.scores(batch), expected, **CLOSE)
        further = load(tmp_path / "adapter", adapter=kind, score_head=True)
        torch.testing.assert_close(further.scores(batch), expected, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_gradient_checkpointing(kind, llama, batch):  # noqa: F811
    half = load(llama, adapter=kind, precision="bf16")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    train(half, batch)
    assert scores(half, batch).dtype == torch.float32
    grads = []
    for on in (False, True):
        policy = load(llama, adapter=kind, gradient_checkpointing=on)
        policy.train()
        policy(batch).logprobs.sum().backward()
        grads.append([p.grad for p in policy.parameters()])
    torch.testing.assert_close(*grads)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_change_nothing(kind, batch):
    _, scorer, virtual = adapted("llama", kind)
    whole = score(scorer, virtual, batch)
    torch.testing.assert_close(score(scorer, virtual, ungroup(batch)), whole, **CLOSE)


def test_tokens_that_plain_peft_puts_elsewhere_are_refused(monkeypatch):
    wrapped, scorer, virtual = adapted("llama", "prompt")
    check_virtual(wrapped, scorer, virtual)
    wrong = type(virtual).inject
    monkeypatch.setattr(type(virtual), "inject", lambda self, positions: wrong(self, positions + 1))
    with pytest.raises(BadInput, match="do not fit"):
        check_virtual(wrapped, scorer, virtual)
    monkeypatch.setattr(probe, "textbook_logprobs", lambda model, batch: 1 / 0)
    with pytest.raises(BadInput, match="do not fit"):
        check_virtual(wrapped, scorer, virtual)


def test_tokens_in_the_middle_of_a_chain(llama, batch, tmp_path):  # noqa: F811
    load(llama, adapter="prompt").save(tmp_path / "one")
    load(llama).save(tmp_path / "two")
    config = tmp_path / "two" / "adapter" / "adapter_config.json"
    facts = json.loads(config.read_text())
    config.write_text(
        json.dumps(facts | {"base_model_name_or_path": str(tmp_path / "one/adapter")})
    )
    assert "cannot be merged" in message(tmp_path / "two" / "adapter", adapter=None)

"""Log-probs of every family against the definition: one completion at a time, all logits."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import transformers as tf
from policy_models import IDS, build, configs

from alignzoo.batch import Example, collate
from alignzoo.errors import BadInput
from alignzoo.policy import lm_head, probe, scoring
from alignzoo.policy.adapters import add_adapter
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.kinds import AdapterSettings
from alignzoo.policy.layout import count_work, pack_batch, ungroup
from alignzoo.policy.probe import pick_scorer, textbook_logprobs
from alignzoo.policy.scoring import UnpaddedScorer

UNSHARED = ("falcon", "mamba")  # alibi by code of their own; recurrent


def perturbed(model, seed=1):
    """LoRA whose B is not zero, so that its gradients are all at work."""
    wrapped = add_adapter(model, "lora", AdapterSettings(rank=4, alpha=8.0, seed=seed))
    draw = torch.Generator().manual_seed(seed)
    for name, p in wrapped.named_parameters():
        if "lora_B" in name:
            p.data = 0.1 * torch.randn(p.shape, generator=draw)
    return wrapped


@pytest.mark.parametrize("unpadded", [True, False])
@pytest.mark.parametrize("name", configs())
def test_matches_the_model(name, unpadded, batch):
    model = build(name)
    plain = copy.deepcopy(model)
    scorer = pick_scorer(model)
    assert isinstance(scorer, UnpaddedScorer) == scorer.shared == (name not in UNSHARED)
    scorer.unpadded = unpadded
    got, ours = gradients(perturbed(model), lambda _: score(scorer, batch))
    expected, theirs = gradients(
        perturbed(plain), lambda wrapped: textbook_logprobs(wrapped, batch)
    )
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert ours.keys() == theirs.keys()
    for parameter, grad in ours.items():
        scale = float(theirs[parameter].abs().max())
        torch.testing.assert_close(grad, theirs[parameter], atol=1e-5 * max(scale, 1), rtol=1e-4)


def gradients(wrapped, run):
    for module in wrapped.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    wrapped.train()  # gradient checkpointing works in training mode only
    out = run(wrapped)
    weights = torch.linspace(0.5, 1.5, out.numel()).view_as(out)
    (out * weights).sum().backward()
    return out.detach(), {n: p.grad for n, p in wrapped.named_parameters() if p.grad is not None}


def score(scorer, batch):
    return scorer(batch).logprobs


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_neighbours_order_and_padding_change_nothing(name, batch):
    scorer = pick_scorer(build(name))
    whole = score(scorer, batch)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(score(scorer, ungroup(batch)), whole, **close)
    order = [2, 0, 3, 1]
    members = torch.cat([torch.nonzero(batch.group == b).flatten() for b in order])
    torch.testing.assert_close(score(scorer, batch.select(order)), whole[members], **close)
    for b in range(len(batch)):
        alone = score(scorer, batch.select([b]))
        part = whole[batch.group == b][:, : alone.shape[1]]
        torch.testing.assert_close(alone, part, **close)
    noisy = copy.deepcopy(batch)
    noisy.prompts[torch.arange(9) >= batch.prompt_lengths[:, None]] = 77
    noisy.tokens[torch.arange(7) >= batch.lengths[:, None]] = 77
    assert torch.equal(score(scorer, noisy), whole)
    absent = torch.arange(7) >= batch.lengths[:, None]
    assert (whole[absent] == 0).all()
    assert (whole[~absent] < 0).all()


@torch.no_grad()
def test_all_scorers_agree_on_entropy_log_sum_p2_and_temperature(batch):
    model = build("gemma2")
    plain = model.config._attn_implementation
    asked = ForwardOptions(entropy=True, temperature=0.7, log_sum_p2=True)
    shared = pick_scorer(model)(batch, asked)
    model.set_attn_implementation(plain)
    for kind in (scoring.RowScorer, scoring.LogitsScorer):
        other = kind(model)(batch, asked)
        torch.testing.assert_close(shared.logprobs, other.logprobs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shared.entropy, other.entropy, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shared.log_sum_p2, other.log_sum_p2, atol=1e-5, rtol=1e-5)
    absent = shared.logprobs == 0
    assert (shared.entropy[absent] == 0).all()
    assert (shared.entropy[~absent] > 0).all()
    # Renyi's entropies fall with their order: -log sum(p^2) <= H.
    assert (shared.log_sum_p2[absent] == 0).all()
    assert (-shared.log_sum_p2[~absent] < shared.entropy[~absent]).all()


def test_full_training_has_the_models_gradients(batch):
    model = build("qwen3")  # tied: the head's gradient goes to the embeddings
    plain = copy.deepcopy(model)
    scorer = pick_scorer(model)
    _, ours = gradients(model, lambda _: score(scorer, batch))
    _, theirs = gradients(plain, lambda m: textbook_logprobs(m, batch))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_changes_nothing(batch):
    results = []
    for on in (False, True):
        model = build("mistral")
        scorer = pick_scorer(model)
        wrapped = perturbed(model)
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        results.append(gradients(wrapped, lambda _, s=scorer: score(s, batch)))
    torch.testing.assert_close(*results)


def test_a_head_of_unknown_kind_is_left_to_the_model(batch, monkeypatch):
    monkeypatch.setattr(lm_head, "_logit_scale", lambda config: 1.0)
    model = build("cohere")
    scorer = pick_scorer(model)
    assert isinstance(scorer, scoring.LogitsScorer)
    assert "logits" in scorer.note
    with torch.no_grad():
        torch.testing.assert_close(
            score(scorer, batch), textbook_logprobs(model, batch), atol=1e-5, rtol=1e-5
        )


def test_prompts_are_not_shared_if_the_model_counts_positions_itself(batch):
    config = tf.BlenderbotSmallConfig(
        vocab_size=97, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64,
        max_position_embeddings=64, init_std=0.2, **IDS,
    )  # fmt: skip
    torch.manual_seed(0)
    model = tf.BlenderbotSmallForCausalLM(config).eval()
    # Learned positions that weigh so little that the numbers alone would hardly tell.
    model.model.decoder.embed_positions.weight.data *= 0.001
    scorer = pick_scorer(model)
    assert not scorer.shared
    with torch.no_grad():
        torch.testing.assert_close(scorer(batch).logprobs, textbook_logprobs(model, batch))


def test_a_cap_on_logits_that_is_not_known_is_left_to_the_model(batch):
    config = tf.xLSTMConfig(
        vocab_size=97, hidden_size=32, num_heads=4, num_hidden_layers=1, output_logit_soft_cap=30.0,
        **IDS,
    )  # fmt: skip
    torch.manual_seed(0)
    model = tf.xLSTMForCausalLM(config).eval()
    scorer = pick_scorer(model)
    model.lm_head.weight.data *= 100.0  # now the cap shows
    with torch.no_grad():
        torch.testing.assert_close(
            scorer(batch).logprobs, textbook_logprobs(model, batch), atol=1e-3, rtol=1e-3
        )


def test_a_model_without_logits_is_refused(monkeypatch):
    monkeypatch.setattr(
        probe, "textbook_logprobs", lambda model, batch: torch.zeros(batch.tokens.shape)
    )
    with pytest.raises(BadInput, match="per-token"):
        pick_scorer(build("llama"))


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_learnt_positions_are_counted(name):
    scorer = pick_scorer(build(name))
    fits = collate([Example([5] * 60, [[6] * 4, [7]])])
    scorer(fits)
    with pytest.raises(BadInput, match="64 positions"):
        scorer(collate([Example([5] * 61, [[6] * 4, [7]])]))


def test_generation_is_as_before():
    model = build("gemma2")
    ids = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 8, 9]])
    asked = {"attention_mask": (ids > 0).long(), "do_sample": False, "max_new_tokens": 8}
    before = model.generate(ids, **asked)
    pick_scorer(model)
    assert torch.equal(model.generate(ids, **asked), before)


def test_layout_has_every_token_once(batch):
    row = pack_batch(batch)
    # Three prompts, one prompt with its completion; a completion's last token predicts nothing.
    assert row.ids.shape == (1, (9 + 3 + 0) + (2 + 1 + 6 + 0) + (4 + 2) + (1 + 0 + 0))
    assert row.source.numel() == int(batch.lengths.sum())
    counted = count_work(batch, shared=True)
    assert counted.tokens == row.ids.numel()
    assert counted.scored == row.source.numel()
    assert count_work(batch, shared=False).tokens > counted.tokens


@torch.no_grad()
@pytest.mark.parametrize("kind", ["shared", "rows", "logits"])
def test_perturbed_embeddings(kind, batch):
    """Each token is told the length of its own sequence, and the model sees the change, once."""
    model = build("llama")
    plain = model.config._attn_implementation
    scorer = pick_scorer(model)
    if kind != "shared":
        model.set_attn_implementation(plain)
        scorer = {"rows": scoring.RowScorer, "logits": scoring.LogitsScorer}[kind](model)
    single = ungroup(batch)  # where no prompt is shared, its tokens belong to one sequence
    seen = {}

    def perturb(embeddings, lengths):
        seen["lengths"] = lengths
        return embeddings * lengths[..., None]

    asked = ForwardOptions(perturb=perturb)
    before = scorer(single).logprobs
    changed = scorer(single, asked).logprobs
    sizes = single.prompt_lengths + single.lengths - 1
    assert seen["lengths"].unique().tolist() == sizes.unique().tolist()
    for n, size in enumerate(sizes.tolist()):
        hook = model.get_input_embeddings().register_forward_hook(lambda _, __, x, k=size: x * k)
        alone = scorer(single.select([n])).logprobs[0]
        hook.remove()
        torch.testing.assert_close(changed[n, : len(alone)], alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(scorer(single).logprobs, before)
    assert not torch.allclose(changed, before)


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match="prompt has no token"):
        pack_batch(collate([Example([], [[1, 2]])]))


def test_shapes_that_do_not_fit_are_an_error(batch):
    with pytest.raises(AssertionError):
        pack_batch(replace(batch, mask=batch.mask[:, 1:]))
    with pytest.raises(AssertionError):
        pack_batch(replace(batch, lengths=batch.lengths[:, None]))

"""Decoding and scoring give what a model says by definition: one sequence at a time, no cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as tf
from policy_models import SIZES, tokenize
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.policy import ModelSpec, Policy, decoder, load_policy
from alignzoo.policy.decoder import CachedDecoder, PlainDecoder, SeparateDecoder
from alignzoo.rollout import Sampling, generate

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 20,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
MINIMAX = {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2}
CONFIGS = {
    "no cache": tf.OpenAIGPTConfig(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2
    ),
    "cache of its own": tf.MiniMaxConfig(**SIZES, **MINIMAX),
    "longrope": tf.Phi3Config(
        **SIZES | {"max_position_embeddings": 64},
        original_max_position_embeddings=20,
        rope_parameters=LONGROPE,
    ),
    "dynamic": tf.LlamaConfig(
        **SIZES | {"max_position_embeddings": 20}, rope_parameters=DYNAMIC
    ),
    "chunks of 4": tf.Llama4TextConfig(
        **SIZES, head_dim=8, num_key_value_heads=2, intermediate_size_mlp=64, num_local_experts=2,
        attention_chunk_size=4, interleave_moe_layer_step=1,
    ),
}  # fmt: skip
KINDS = {
    "no cache": PlainDecoder,
    "cache of its own": PlainDecoder,
    "longrope": CachedDecoder,
    "dynamic": CachedDecoder,
    "chunks of 4": CachedDecoder,
}
PROMPTS = [[5, 9, 11], list(range(20, 38)), [7, 8, 9, 7, 50, 60], [5, 9, 11]]


@pytest.fixture(scope="module", params=list(CONFIGS))
def loaded(request, tmp_path_factory) -> tuple[str, Policy]:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(CONFIGS[request.param]).save_pretrained(folder)
    tokenize(folder)
    return request.param, load(folder)


def load(folder: Path, **options) -> Policy:
    spec = ModelSpec(str(folder), adapter="lora", device=torch.device("cpu"))
    policy = load_policy(replace(spec, **options))
    policy.eval()
    return policy


def defined(policy: Policy, prompt: list[int], completion: list[int]) -> Tensor:
    """The log-prob of each token, `[t]`, in a pass over all before it and nothing else."""
    found, ids = [], list(prompt)
    for token in completion:
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        found.append(logits[0, -1].log_softmax(-1)[token])
        ids.append(token)
    return torch.stack(found)


def test_completions_are_the_models(loaded):
    name, policy = loaded
    assert policy.decoder is KINDS[name]
    assert ("without a cache" in (policy.note or "")) is (KINDS[name] is PlainDecoder)
    sampling = Sampling(max_new_tokens=8, stop_ids=[96], temperature=1.0)
    completions = generate(policy, PROMPTS, [0, 1, 2, 3], sampling)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        expected = defined(policy, prompt, completion.tokens)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    greedy = Sampling(max_new_tokens=8, stop_ids=[96], temperature=0.0)
    base: tf.PreTrainedModel = policy.model.get_base_model()
    theirs = base.generate(
        torch.tensor([PROMPTS[1]]), do_sample=False, max_new_tokens=8, eos_token_id=96,
        pad_token_id=0,
    )  # fmt: skip
    if name != "dynamic":  # there transformers keeps cached keys of other frequencies
        assert generate(policy, [PROMPTS[1]], [0], greedy)[0].tokens == theirs[0, 18:].tolist()


@pytest.fixture
def mixed() -> Batch:
    """Sequences on both sides of 20 tokens."""
    draw = torch.Generator().manual_seed(2)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 96, (length,), generator=draw).tolist()

    return collate(
        [
            Example(ids(5), [ids(4), ids(6)]),
            Example(ids(14), [ids(3), ids(20), ids(9)]),
            Example(ids(25), [ids(7)]),
        ]
    )


def test_micro_batches_have_no_effect(loaded, mixed):
    _, policy = loaded
    with torch.no_grad():
        together = policy(mixed, entropy=True)
        split = mixed.piecewise(lambda micro: policy(micro).logprobs, max_tokens=16)
        torch.testing.assert_close(together.logprobs, split, atol=1e-4, rtol=1e-4)
        assert together.entropy.shape == together.logprobs.shape
        for n, length in enumerate(mixed.lengths.tolist()):
            group = mixed.group[n]
            prompt = mixed.prompts[group, : mixed.prompt_lengths[group]]
            completion = mixed.tokens[n, :length]
            ids = torch.cat([prompt, completion])[:-1]  # the last one predicts nothing
            logits = policy.model(input_ids=ids[None], use_cache=False).logits[0, -length:]
            alone = logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
            torch.testing.assert_close(together.logprobs[n, :length], alone, atol=1e-4, rtol=1e-4)


def test_scores_and_values_of_long_sequences(tmp_path, mixed):
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(CONFIGS["longrope"]).save_pretrained(tmp_path)
    tokenize(tmp_path)
    policy = load(tmp_path, score_head=True, values="shared")
    torch.nn.init.normal_(policy.value_head.weight)
    with torch.no_grad():
        for compute in (policy.scores, policy.values):
            whole = compute(mixed)
            split = mixed.piecewise(compute, max_tokens=16)
            torch.testing.assert_close(whole, split, atol=1e-4, rtol=1e-4)
        assert policy(mixed, values=True).values.abs().sum() > 0
    loss = policy(mixed, values=True)
    (loss.logprobs.sum() + loss.values.sum()).backward()
    assert all(p.grad is not None for name, p in policy.named_parameters() if "lora_B" in name)


def test_dynamic_frequencies_do_not_depend_on_earlier_passes(tmp_path, mixed):
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(CONFIGS["dynamic"]).save_pretrained(tmp_path)
    tokenize(tmp_path)
    policy = load(tmp_path)
    with torch.no_grad():
        before = policy(mixed).logprobs
        policy(collate([Example(list(range(3, 60)), [[5, 6]])]))
        assert torch.equal(policy(mixed).logprobs, before)


def test_a_cache_that_does_not_take_padding(tmp_path, monkeypatch):
    """Rows of unlike length are decoded apart, each with a cache of its own."""
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(tf.LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    tokenize(tmp_path)
    plain = load(tmp_path)
    padded = decoder._padded

    def ignored(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        tokens, attention = padded(prompts)
        return tokens, torch.ones_like(attention)

    monkeypatch.setattr(decoder, "_padded", ignored)
    policy = load(tmp_path)
    assert policy.decoder is SeparateDecoder
    assert "one at a time" in policy.note
    sampling = Sampling(max_new_tokens=8, stop_ids=[96], temperature=1.0)
    ours = generate(policy, PROMPTS, [0, 1, 2, 3], sampling, batch_size=4)
    monkeypatch.setattr(decoder, "_padded", padded)
    theirs = generate(plain, PROMPTS, [0, 1, 2, 3], sampling)
    assert [c.tokens for c in ours] == [c.tokens for c in theirs]


def test_a_reward_model_is_not_asked_to_decode(tmp_path):
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(CONFIGS["no cache"]).save_pretrained(tmp_path)
    tokenize(tmp_path)
    policy = load(tmp_path, score_head=True)
    assert policy.decoder is None
    assert "cache" not in policy.note
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "openai-gpt"


def test_a_model_that_works_in_place_is_refused_for_training(tmp_path):
    """RWKV rescales its weights whenever it changes between training and evaluation."""
    torch.manual_seed(1)
    config = tf.RwkvConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, context_length=64)
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenize(tmp_path)
    with pytest.raises(BadInput, match="a rwkv model gives no gradient"):
        load(tmp_path)
    load(tmp_path, adapter=None)


N_EMBD = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 20}
TABLES = {
    "gpt2": tf.GPT2Config(**N_EMBD, initializer_range=0.2),
    "gptj": tf.GPTJConfig(**N_EMBD, rotary_dim=4, initializer_range=0.2),
    "opt": tf.OPTConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
        word_embed_proj_dim=32, max_position_embeddings=20, init_std=0.2,
    ),
    "mpt": tf.MptConfig(vocab_size=97, d_model=32, n_layers=2, n_heads=4, max_seq_len=20),
}  # fmt: skip


def of_config(config: tf.PreTrainedConfig, folder: Path, **options) -> Policy:
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenize(folder)
    return load(folder, **options)


@pytest.mark.parametrize("name", list(TABLES))
def test_completions_end_at_the_last_position(tmp_path, name):
    policy = of_config(TABLES[name], tmp_path)
    assert policy.positions == 20
    prompts = [list(range(3, 3 + n)) for n in (1, 12, 12, 19, 4)]
    sampling = Sampling(max_new_tokens=10, stop_ids=[96], temperature=1.0)
    completions = generate(policy, prompts, [0, 1, 2, 3, 4], sampling)
    assert [len(c.tokens) for c in completions] == [10, 8, 8, 1, 10]
    assert not any(c.ended for c in completions)
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = defined(policy, prompt, completion.tokens)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    with pytest.raises(BadInput, match="a prompt of 20 tokens leaves no room .* 20 positions"):
        generate(policy, [*prompts, list(range(20))], [0] * 6, sampling)


def test_virtual_tokens_take_positions(tmp_path):
    policy = of_config(TABLES["gpt2"], tmp_path, adapter="prompt", virtual_tokens=5)
    assert policy.positions == 15
    sampling = Sampling(max_new_tokens=10, stop_ids=[96], temperature=1.0)
    completions = generate(policy, [[5] * 3, [6] * 13], [0, 1], sampling)
    assert [len(c.tokens) for c in completions] == [10, 2]


def test_positions_that_are_computed_do_not_end(tmp_path):
    assert of_config(CONFIGS["dynamic"], tmp_path).positions is None


def test_a_run_has_the_models_positions(tmp_path, capfd):
    """The rows are cut to them; what cannot be answered is refused before the run begins."""
    folder = tmp_path / "model"
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(TABLES["gpt2"]).save_pretrained(folder)
    tokenize(folder)
    data = tmp_path / "d.jsonl"
    words = " ".join(f"w{i}" for i in range(10, 40))
    rows = [{"prompt": f"w{i} {words}", "completion": f"w5 {words}"} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["--model", str(folder), "--data", str(data), "--output-dir", str(tmp_path / "runs")]
    brief = ["--steps", "1", "--batch-size", "2", "--max-new-tokens", "16", "--name", "a"]
    assert status(["run", "sft", *run, *brief]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "--max-length 1,024 is more than the 20 positions" in said
    assert "2 prompts of the evaluation truncated to 10 tokens" in said
    assert "2 completions of the evaluation cannot have 16 tokens" in said
    facts = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert facts["recipe"]["max_length"] == 20
    assert facts["results"]["before"]["length"]["mean"] <= 10
    more = ["--reward", "length,most=9", "--max-new-tokens", "20", "--name", "b"]
    assert status(["run", "grpo", *run, *more]) == 2
    assert "leaves no room for a prompt in --max-length 20" in capfd.readouterr().err
    assert not (tmp_path / "runs" / "b").exists()
    assert status(["chat", str(folder), "--prompt", words]) == 2
    assert "tokens leaves no room for an answer in the 20 positions" in capfd.readouterr().err

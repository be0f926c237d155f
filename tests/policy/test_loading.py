"""Every weight is accounted for when a model is loaded, or one message says which is not."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from peft.tuners.tuners_utils import BaseTuner
from policy_models import SIZES, build, configs, tokenize
from safetensors.torch import load_file, save_file

from alignzoo.batch import Batch
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.policy import ModelSpec, Policy, load_policy

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    build("llama", seed=7).save_pretrained(path)
    tokenize(path)
    return path


@pytest.fixture
def model(llama, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def load(model: Path, **options) -> Policy:
    options.setdefault("adapter", "lora")
    return load_policy(ModelSpec(str(model), device=torch.device("cpu"), **options))


def message(model: Path, **options) -> str:
    """The message of a refusal, which fits a screen."""
    with pytest.raises(BadInput) as error:
        load(model, **options)
    assert error.value.message.count("\n") <= 2
    assert len(error.value.message) < 800
    return error.value.message


def rewrite(model: Path, change: Callable[[Tensors], Tensors], name="model.safetensors") -> None:
    tensors = {key: t.clone() for key, t in load_file(model / name).items()}
    save_file(change(tensors), model / name, metadata={"format": "pt"})


def configure(model: Path, **changes) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + key: t for key, t in tensors.items()}


@pytest.mark.parametrize(
    ("prefix", "tool"),
    [("_orig_mod.", "torch.compile"), ("module.", "Distributed"), ("pretrained_model.", "TRL")],
)
def test_names_with_the_prefix_of_a_wrapper(model, prefix, tool):
    rewrite(model, renamed(prefix))
    text = message(model)
    assert "21 of 21 weights are not in the file" in text
    assert tool in text
    load(model, random_init=True)


def test_a_lost_tensor(model):
    rewrite(model, lambda w: {k: t for k, t in w.items() if "layers.1.mlp.up_proj" not in k})
    assert "1 of 21 weights are not in the file, as model.layers.1.mlp.up_proj" in message(model)


def test_a_lost_shard(model):
    sharded = build("llama")
    (model / "model.safetensors").unlink()
    sharded.save_pretrained(model, max_shard_size="20KB")
    load(model)
    last = sorted(model.glob("model-*.safetensors"))[-1]
    last.unlink()
    assert f"missing: {last.name}" in message(model)


def test_an_index_that_names_a_pickle(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    index = {"weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    text = message(model)
    assert "'pytorch_model.bin', which is no safetensors file" in text
    assert "pickles" in text


@pytest.mark.parametrize(
    "name", ["weights.dat", "weights", "../model.safetensors", "x.SAFETENSORS"]
)
def test_an_index_that_names_other_files(model, name):
    (model / "model.safetensors").rename(model / "weights.dat")
    index = {"weight_map": {"lm_head.weight": name}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"{name!r}, which is no safetensors file" in message(model)


@pytest.mark.parametrize("name", ["adapter_model.bin", "other.safetensors.index.json"])
def test_a_configuration_that_names_other_weights(model, name):
    configure(model, transformers_weights=name)
    assert f"names another file of weights, {name!r}" in message(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 5}}'])
def test_an_index_that_is_none(model, text):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(text)
    assert "index" in message(model)


def test_more_and_fewer_layers_than_weights(model):
    configure(model, num_hidden_layers=3)
    assert "9 of 30 weights are not in the file, as model.layers.2." in message(model)
    configure(model, num_hidden_layers=1)
    text = message(model)
    assert "9 weights that the model does not use, as model.layers.1." in text
    configure(model, num_hidden_layers=10**9)
    assert "1,000,000,000 layers by config.json" in message(model)


def test_a_part_of_a_layer_that_config_json_does_not_know(model):
    rewrite(model, lambda w: w | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})
    assert "does not use, as model.layers.0.self_attn.q_proj.bias" in message(model)


def test_another_head_beside_the_weights_is_noted(model):
    rewrite(model, lambda w: w | {"v_head.summary.weight": torch.ones(1, 32)})
    assert "1 tensor of the file left out" in str(load(model).note)


def test_tensors_that_models_compute_by_themselves_now(model):
    rewrite(model, lambda w: w | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert load(model).note is None


def test_tied_weights_are_not_missing(tmp_path):
    build("qwen3").save_pretrained(tmp_path)
    tokenize(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load(tmp_path)


def test_a_classifier_is_no_language_model(model):
    configure(model, architectures=["LlamaForSequenceClassification"])
    rewrite(model, lambda w: {k: t for k, t in w.items() if k != "lm_head.weight"})
    assert "of a LlamaForSequenceClassification, which has no language-model" in message(model)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_classifier_scores(tmp_path, name, batch):
    torch.manual_seed(0)
    config = configs()[name]
    config.num_labels = 1
    classifier = tf.AutoModelForSequenceClassification.from_config(config).eval()
    classifier.save_pretrained(tmp_path)
    tokenize(tmp_path)
    policy = load(tmp_path, adapter=None)
    assert policy.fingerprint == load(tmp_path, adapter=None).fingerprint
    assert policy.note is None
    scores = batch.last(policy.scores(batch))
    for n, (ids, length) in enumerate(zip(batch.tokens, batch.lengths, strict=True)):
        group = batch.group[n]
        prompt = batch.prompts[group, : batch.prompt_lengths[group]]
        row = torch.cat([prompt, ids[:length]])[None]
        with torch.no_grad():
            expected = classifier(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, 0]
        torch.testing.assert_close(scores[n], expected, atol=1e-4, rtol=1e-4)


def test_a_classifier_of_many_labels_is_no_reward_model(tmp_path):
    config = configs()["llama"]
    config.num_labels = 3
    tf.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenize(tmp_path)
    assert "a classifier of 3 labels" in message(tmp_path, adapter=None)


DAMAGE = {
    "a git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "a web page": b"<!DOCTYPE html><html>Not found</html>",
    "a zip archive or a pickle": b"PK\x03\x04" + b"\0" * 64,
    "a pickle": b"\x80\x02}q\x00." + b"\0" * 64,
    "a GGUF file": b"GGUF\x03\0\0\0" + b"\0" * 64,
    "the file is empty": b"",
    "not a safetensors file": b"\xff" * 64,
    "header is damaged": (20).to_bytes(8, "little") + b'{"a": 5, "b": "xxx"}',
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_file_that_is_another(model, what):
    (model / "model.safetensors").write_bytes(DAMAGE[what])
    text = message(model)
    assert what in text
    assert "model.safetensors" in text


@pytest.mark.parametrize("length", [4, 100, 20_000, -1])
def test_a_file_that_is_cut_off(model, length):
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert "not a safetensors file" in message(model) or "incomplete" in message(model)
    path.write_bytes(whole + b"\0")
    assert "longer" in message(model)


def test_another_shape(model):
    configure(model, vocab_size=103)
    text = message(model)
    assert "lm_head.weight is [97, 32] in the file and [103, 32] by config.json" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite(model, value):
    def damage(tensors: Tensors) -> Tensors:
        tensors["model.embed_tokens.weight"][90, 3] = value  # of a word that no probe says
        return tensors

    rewrite(model, damage)
    assert "model.embed_tokens.weight holds NaN or infinity" in message(model)


def test_gguf(model):
    (model / "model.safetensors").rename(model / "model-q4.gguf")
    assert "GGUF (model-q4.gguf)" in message(model)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_quantised_by_a_tool_that_is_not_here(model, method):
    config = {"quant_method": method, "bits": 4, "group_size": 128, "version": "gemm"}
    configure(model, quantization_config=config)
    assert "cannot be loaded" in message(model) or "not installed" in message(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "large"},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
        {"hidden_act": "x"},
        {"head_dim": 0},
        {"model_type": []},
        {"dtype": []},
        {"rope_parameters": {"rope_type": "none"}},
        {"vocab_size": None},
        {"layer_types": 5},
    ],
    ids=str,
)
def test_config_of_wrong_values(model, changes):
    configure(model, **changes)
    assert str(model) in message(model)


def test_tokens_beyond_the_embeddings(model):
    tokenizer = tf.AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(model)
    load(model)  # only a text with images would have it
    tokenizer.chat_template = "{% for m in messages %}<image>{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(model)
    text = message(model)
    assert "ids up to 97, the model embeddings for 97: '<image>' have none" in text


def adapted(path: Path, model: Path, **recipe) -> Path:
    """A finished run with an adapter."""
    policy = load(model)
    path.mkdir()
    policy.save(path)
    record = {
        "status": "finished",
        "recipe": {"model": str(model), "adapter": "lora", **recipe},
        "fingerprints": {"weights": policy.trained_on},
    }
    (path / "run.json").write_text(json.dumps(record))
    return path


ADAPTER = "adapter/adapter_model.safetensors"


def test_an_adapter_whose_names_do_not_fit(tmp_path, model):
    run = adapted(tmp_path / "run", model)

    def rename(tensors: Tensors) -> Tensors:
        return {k.replace("base_model.model.", "base_model.model._orig_mod."): t
                for k, t in tensors.items()}  # fmt: skip

    rewrite(run, rename, ADAPTER)
    for adapter in ("lora", None):
        text = message(run, adapter=adapter)
        assert "none of the adapter's 28 tensors belongs to a layer of the base" in text
        assert "torch.compile" in text


def test_an_adapter_that_names_a_module_to_import(tmp_path, model, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "megatron").mkdir()
    (tmp_path / "megatron" / "evil.py").write_text("raise SystemExit('imported')")
    run = adapted(tmp_path / "run", model)
    path = run / "adapter" / "adapter_config.json"
    named = {"megatron_config": {"x": 1}, "megatron_core": "megatron.evil"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    for adapter in ("lora", None):
        assert "is for Megatron's layers" in message(run, adapter=adapter)


def test_an_adapter_that_is_not_whole(tmp_path, model):
    run = adapted(tmp_path / "run", model)
    rewrite(run, lambda w: dict(sorted(w.items())[:-3]), ADAPTER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT's own list of them all is not shown
        assert "the adapter lacks 3 tensors" in message(run)
    rewrite(run, lambda w: {k: t * float("nan") for k, t in w.items()}, ADAPTER)
    (run / ADAPTER).write_bytes(DAMAGE["a git-LFS pointer"])
    assert "git lfs pull" in message(run)


def test_an_adapter_of_another_size(tmp_path, model):
    run = adapted(tmp_path / "run", model)
    rewrite(run, lambda w: {k: t[:3] if "lora_A" in k else t for k, t in w.items()}, ADAPTER)
    assert "size mismatch" in message(run)


def test_an_adapter_of_nan(tmp_path, model):
    run = adapted(tmp_path / "run", model)
    rewrite(run, lambda w: {k: t * float("nan") for k, t in w.items()}, ADAPTER)
    assert "holds NaN" in message(run)


def test_the_base_changed_under_its_adapter(tmp_path, model):
    first = adapted(tmp_path / "first", model)
    second = adapted(tmp_path / "second", first)
    load(second)
    build("llama", seed=7).save_pretrained(model, max_shard_size="20KB")
    (model / "model.safetensors").unlink()
    load(second)  # the same weights in other files
    rewrite(first, lambda w: {k: t + 0.01 for k, t in w.items()}, ADAPTER)
    load(first)
    assert f"{second / 'adapter'}: the weights under this adapter" in message(second)
    build("llama", seed=8).save_pretrained(model, max_shard_size="20KB")
    for adapter in ("lora", None):
        assert "have changed since it was trained" in message(first, adapter=adapter)


def test_an_adapter_on_random_weights(tmp_path, model):
    run = adapted(tmp_path / "run", model, random_init=True)
    assert "trained on random weights, which were not saved" in message(run)


def test_a_damaged_tokenizer(model):
    (model / "tokenizer.json").write_bytes(DAMAGE["a web page"])
    assert "cannot be loaded" in message(model)


def test_tokenizer_config_of_wrong_values(model):
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": "long"}))
    assert str(model) in message(model)


def test_config_of_wrong_values_for_random_weights(model):
    configure(model, hidden_act="x")
    assert str(model) in message(model, random_init=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "anything.txt"])
def test_a_file_whose_reading_would_not_end(model, name):
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to("/dev/zero")
    assert "json" in message(model) if name == "config.json" else "not a regular" in message(model)


def test_the_command_line_says_it(model, tmp_path, capfd, batch: Batch):
    rewrite(model, renamed("_orig_mod."))
    words = ["run", "dpo", "--model", str(model), "--task", "style", "--steps", "1"]
    assert status([*words, "--output-dir", str(tmp_path / "runs")]) == 2
    printed = capfd.readouterr().err
    assert f"alignzoo: {model}: 21 of 21 weights are not in the file" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


def zamba(path: Path) -> Path:
    """A model whose layers share an attention block."""
    sizes = {key: v for key, v in SIZES.items() if key not in ("num_hidden_layers",)}
    config = tf.Zamba2Config(
        **sizes, num_hidden_layers=4, num_key_value_heads=4, n_mamba_heads=4, mamba_headdim=16,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"], mamba_d_state=8, mamba_ngroups=1,
        chunk_size=16, num_mem_blocks=1,
    )  # fmt: skip
    torch.manual_seed(0)
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenize(path)
    return path


def test_an_adapter_on_shared_blocks_is_merged_into_each(tmp_path, batch):
    run = tmp_path / "run"
    policy = load(zamba(tmp_path / "model"))
    for name, p in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    policy.eval()
    with torch.no_grad():
        expected = policy(batch).logprobs
    run.mkdir()
    policy.save(run)
    record = {"status": "finished", "recipe": {"model": str(tmp_path / "model")}}
    (run / "run.json").write_text(json.dumps(record))
    further = load(run)
    further.eval()
    with torch.no_grad():
        torch.testing.assert_close(further(batch).logprobs, expected, atol=1e-4, rtol=1e-4)
        base = load(tmp_path / "model").reference(batch).logprobs
        assert (further.reference(batch).logprobs - base).abs().max() > 0.01
    # Saved, the copies would be one again.
    for adapter in ("none", "qlora"):
        assert "layers share weights" in message(run, adapter=adapter)


def test_a_merge_that_changes_the_model_is_refused(tmp_path, model, monkeypatch):
    run = adapted(tmp_path / "run", model)
    rewrite(run, lambda w: {k: t + 0.1 for k, t in w.items()}, ADAPTER)
    load(run)
    monkeypatch.setattr(BaseTuner, "merge_and_unload", lambda adapted: adapted.unload())
    assert "merging this adapter changes what a llama model computes" in message(run)


def test_how_much_is_in_four_bits(model, tmp_path):
    note = load(model, adapter="qlora").note
    assert note == "74% of the weights are in 4 bits"
    build("mixtral").save_pretrained(tmp_path / "experts")
    tokenize(tmp_path / "experts")
    note = load(tmp_path / "experts", adapter="qlora").note
    assert note.startswith("only 10% of the weights are in 4 bits: experts are not quantised")


def test_bf16_is_refused_on_a_card_that_has_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    spec = ModelSpec("zoo-tiny", precision="bf16", device=torch.device("cuda"))
    with pytest.raises(BadInput, match="this card has no bf16\n  use --precision fp32"):
        load_policy(spec)

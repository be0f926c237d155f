"""What a run exports is what plain peft and transformers load, or nothing at all."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from alignzoo import BadInput, RunFailed, load_policy
from alignzoo.data import Codec
from alignzoo.rollout import Sampling
from alignzoo_export import write
from alignzoo_export.items import Item, Reference, make_reference
from alignzoo_export.plain import PlainModel
from alignzoo_export.proof import check_prompts, cut_at_end


def report_of(out):
    return json.loads((out / "export.json").read_text())


def test_an_adapter_on_an_adapter_becomes_one_on_the_original_base(runs, export, tmp_path):
    first = runs("first")
    second = runs("second", model=str(first), adapter="rslora")
    out = tmp_path / "out"
    export(second, out)
    (proof,) = report_of(out)["proofs"]
    assert proof["program"] == "peft" and proof["gap"] < 1e-4
    assert "- **Before it:** dpo on style\n" in (out / "README.md").read_text()
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == 32  # the sum of the ranks
    # Without a word of alignzoo's: the base that the file names, and the folder.
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    PeftModel.from_pretrained(base, out)


def test_a_merged_model_of_a_qlora_run_is_in_full_precision(runs, export, tmp_path):
    out = tmp_path / "out"
    export(runs("qlora", adapter="qlora"), out, "--merge")
    report = report_of(out)
    assert (report["kind"], report["merged"]) == ("float32", True)
    assert report["proofs"][0]["gap"] < 1e-4 < report["four_bit_gap"]
    assert not (out / "adapter_config.json").exists()
    assert report["run_score"]["n"] == report["proofs"][0]["score"]["n"] == 2
    card = (out / "README.md").read_text()
    for part in ("arxiv.org/abs/2305.18290", "| pairs | 4 |", "| score |", "from_pretrained"):
        assert part in card


def test_all_trained_weights_are_exported_as_a_model(runs, export, tmp_path):
    out = tmp_path / "out"
    printed = export(runs("full", adapter="none"), out, "--dtype", "bf16", "--json")
    report = json.loads(printed)
    assert (report["what"], report["kind"], report["merged"]) == ("model", "bfloat16", False)
    assert all(w.dtype == torch.bfloat16 for w in load_file(out / "model.safetensors").values())
    assert 1e-6 < report["proofs"][0]["gap"] < 0.05


def test_a_folder_that_holds_something_else_is_refused(runs, export, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds something else: mine\.txt"):
        export(runs("first"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def other_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_template(folder):
    path = folder / "chat_template.jinja"
    path.write_text("x" + path.read_text())


def no_stop(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')


def other_bos(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<|bos|>", "<|pad|>"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_weights, "other log-probs than the run"),
        (other_template, "other tokens than the run"),
        (no_stop, r"does not end an answer at '<\|end\|>'"),
        (other_bos, "has BOS 0, the run 1"),
    ],
)
def test_an_export_that_is_not_the_run_is_removed(
    runs, export, tmp_path, monkeypatch, damage, message
):
    complete = write.write_tokenizer

    def write_tokenizer(codec, folder):
        complete(codec, folder)
        damage(folder)

    monkeypatch.setattr("alignzoo_export.export.write_tokenizer", write_tokenizer)
    with pytest.raises(RunFailed, match=message):
        export(runs("first"), tmp_path / "out", "--merge")
    assert not list(tmp_path.iterdir())


def test_adapters_that_cannot_become_one_are_refused(runs, export, tmp_path):
    second = runs("dora", model=str(runs("first")), adapter="dora")
    with pytest.raises(BadInput, match=r"one of them is DoRA, not LoRA\n  add --merge"):
        export(second, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_virtual_tokens_are_exported_as_an_adapter_alone(runs, export, tmp_path):
    run = runs("prompt", adapter="prompt")
    export(run, tmp_path / "out")
    with pytest.raises(BadInput, match="virtual tokens cannot be merged"):
        export(run, tmp_path / "merged", "--merge")


def test_combined_adapters_add_up(tmp_path):
    """Of unlike ranks and scales, rank-stabilised or not, in any order."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    paths = []
    for k, (rank, alpha, stable) in enumerate([(2, 16, True), (3, 4, False), (5, 8, True)]):
        lora = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            use_rslora=stable,
            init_lora_weights=False,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        paths.append(tmp_path / f"adapter{k}")
        get_peft_model(base, lora).save_pretrained(paths[-1])
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    for path in paths:
        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    (tmp_path / "out").mkdir()
    write.combine(str(tmp_path / "base"), paths, tmp_path / "out", trust_remote_code=False)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    combined = PeftModel.from_pretrained(base, tmp_path / "out")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(combined(ids).logits, model(ids).logits)


def test_a_tokenizer_without_a_template_gets_the_one_of_the_run(tmp_path):
    policy = load_policy("zoo-tiny")
    policy.tokenizer.chat_template = None
    codec = Codec(policy.tokenizer)
    write.write_tokenizer(codec, tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello\n\nthere "},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "What is it?"},
    ]
    for dialogue in (messages, messages[1:2]):
        text = exported.apply_chat_template(dialogue, add_generation_prompt=True, tokenize=False)
        ids = exported(text, add_special_tokens=False).input_ids
        assert ids == codec.prompt(dialogue)


def test_a_plain_model_ends_answers_as_its_files_say(runs, export, tmp_path):
    out = tmp_path / "out"
    export(runs("first"), out, "--merge")
    model = PlainModel(out, device=torch.device("cpu"), trust_remote_code=False)
    assert model.stops_at(model.eos) and not model.stops_at(model.bos)


def test_an_answer_ends_at_a_text_that_ended_it_in_the_run():
    policy = load_policy("zoo-tiny")
    codec = Codec(policy.tokenizer)
    ids = codec.completion("x", "The morning is old. The park is old.")
    sampling = Sampling(64, codec.stop_ids, stop=["old"], decode=codec.decode)
    assert codec.decode(cut_at_end(ids, sampling)) == "The morning is old"
    assert cut_at_end(ids, Sampling(64, codec.stop_ids)) == ids


def test_a_text_that_gets_a_bos_only_from_the_run_is_an_error():
    policy = load_policy("zoo-tiny")
    codec = Codec(policy.tokenizer)
    ids = codec.prompt("The morning")
    assert ids[0] == codec.bos
    item = Item("The morning", {}, None, ids, ids[1:], [])
    subject = SimpleNamespace(name="it", encode=lambda prompt, values: ids[1:])
    with pytest.raises(RunFailed, match="puts a BOS before a text"):
        check_prompts(subject, Reference([item], codec, None, None))


def test_a_model_that_does_not_fit_the_accelerator_is_computed_on_the_cpu(
    runs, export, tmp_path, monkeypatch
):
    monkeypatch.setattr("alignzoo_export.export.default_device", lambda: torch.device("cuda"))

    def answer(run, count, *, device, **options):
        if device.type == "cuda":
            raise torch.OutOfMemoryError
        return make_reference(run, count, device=device, **options)

    monkeypatch.setattr("alignzoo_export.export.make_reference", answer)
    export(runs("first"), tmp_path / "out")
    assert report_of(tmp_path / "out")["proofs"][0]["gap"] < 1e-4

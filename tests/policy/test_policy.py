"""Loading, reference, saving, chains of runs, and every way in which a model can be wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import transformers as tf
from policy_models import SIZES, build, tokenize

import alignzoo.policy
from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.policy.probe import textbook_logprobs

SETTINGS = {
    "adapter": "lora",
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "lora_dropout": 0.0,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "random_init": False,
    "reference": True,
    "seed": 0,
    "device": torch.device("cpu"),
}


def load(model, **changes) -> Policy:
    return load_policy(ModelSpec(str(model), **(SETTINGS | changes)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A model on disk: dropout in its config, its widths no multiple of 64."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = tf.GPT2Config(
        vocab_size=97, n_embd=96, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    tf.GPT2LMHeadModel(config).save_pretrained(path)
    tokenize(path)
    return path


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    build("llama", seed=7).save_pretrained(path)
    tokenize(path)
    return path


def train(policy: Policy, batch: Batch, steps: int = 3, rate: float = 0.05) -> None:
    policy.train()
    optimizer = torch.optim.SGD(policy.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (-policy(batch).logprobs.sum() / batch.lengths.sum()).backward()
        optimizer.step()


def scores(policy: Policy, batch: Batch) -> torch.Tensor:
    policy.eval()
    with torch.no_grad():
        return policy(batch).logprobs


def run_folder(path: Path, policy: Policy, model: str, adapter: str) -> Path:
    path.mkdir(parents=True)
    policy.save(path)
    record = {"status": "finished", "recipe": {"model": model, "adapter": adapter}}
    (path / "run.json").write_text(json.dumps(record))
    return path


def test_every_name_of_the_package_resolves():
    assert {"Policy", "ModelSpec", "load_policy"} <= set(alignzoo.policy.__all__)
    for name in alignzoo.policy.__all__:
        assert getattr(alignzoo.policy, name) is not None


@pytest.mark.parametrize("adapter", ["lora", "qlora", "none"])
@pytest.mark.parametrize("model", ["folder", "llama"])
def test_step_zero_then_training(model, adapter, batch, request):
    policy = load(request.getfixturevalue(model), adapter=adapter)
    policy.train()
    out, reference = policy(batch, entropy=True), policy.reference(batch)
    assert torch.equal(out.logprobs, reference.logprobs)  # so that DPO starts at exactly ln 2
    margin = (out.logprobs - reference.logprobs).sum(1)
    assert float(-torch.nn.functional.logsigmoid(margin.detach()).mean()) == pytest.approx(
        math.log(2)
    )
    assert out.logprobs.requires_grad
    assert not reference.logprobs.requires_grad
    assert out.entropy.shape == out.logprobs.shape
    assert policy.model.training
    train(policy, batch)
    assert scores(policy, batch).sum() > reference.logprobs.sum()
    # Scoring in evaluation mode has left the weights as they were.
    torch.testing.assert_close(policy.reference(batch).logprobs, reference.logprobs)
    assert all(p.grad is not None for p in policy.parameters())
    assert policy.trainable_count == sum(p.numel() for p in policy.parameters())


DROPOUT_OF_THEIR_OWN = {
    "a number of the module": tf.GPTBigCodeConfig(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2
    ),
    "a module made in the first pass": tf.BigBirdConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2, is_decoder=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", list(DROPOUT_OF_THEIR_OWN))
def test_no_dropout_is_left(where, tmp_path, batch):
    tf.AutoModelForCausalLM.from_config(DROPOUT_OF_THEIR_OWN[where]).save_pretrained(tmp_path)
    tokenize(tmp_path)
    policy = load(tmp_path)
    policy.train()
    assert torch.equal(policy(batch).logprobs, policy.reference(batch).logprobs)


def test_a_model_that_draws_in_training_is_refused(tmp_path):
    sizes = {**SIZES, "num_key_value_heads": 2, "num_local_experts": 4}
    config = tf.PhimoeConfig(**sizes, router_jitter_noise=0.5)  # it draws among near experts
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenize(tmp_path)
    with pytest.raises(BadInput, match="training mode"):
        load(tmp_path)
    load_policy(ModelSpec(str(tmp_path), device=torch.device("cpu")))  # evaluation draws nothing


def test_four_bits_are_near_the_weights(llama, batch):
    full, small = load(llama), load(llama, adapter="qlora")
    assert small.model.get_base_model().is_quantized
    assert small.parameter_count == full.parameter_count
    assert small.flops == full.flops
    a, b = scores(full, batch), scores(small, batch)
    assert 0 < float((a - b).abs().mean()) < 0.5


def test_zoo_tiny_is_found(batch):
    policy = load("zoo-tiny", random_init=True)
    assert policy.name == "zoo-tiny"
    assert scores(policy, batch).isfinite().all()


def test_seeds(llama, batch):
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = load(llama), load(llama), load(llama, seed=1)
    assert torch.equal(torch.rand(1), before)  # the global generator is not touched
    a, b, c = ({n: p for n, p in x.state().items() if "lora_A" in n} for x in (first, again, other))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not any(torch.equal(a[n], c[n]) for n in a)
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_scratch(llama):
    stored, one, two = (
        load(llama, **c) for c in ({}, {"random_init": True}, {"random_init": True})
    )
    assert one.fingerprint == two.fingerprint != stored.fingerprint
    assert load(llama, random_init=True, seed=1).fingerprint != one.fingerprint


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_state_goes_round(llama, batch, adapter):
    policy = load(llama, adapter=adapter)
    train(policy, batch)
    policy.move_reference()
    train(policy, batch)
    other = load(llama, adapter=adapter)
    other.load_state({name: t.clone() for name, t in policy.state().items()})
    torch.testing.assert_close(scores(other, batch), scores(policy, batch))
    torch.testing.assert_close(other.reference(batch).logprobs, policy.reference(batch).logprobs)
    with pytest.raises(RunFailed, match="does not match"):
        other.load_state({"x": torch.zeros(1)})


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_moving_the_reference(llama, batch, adapter):
    policy = load(llama, adapter=adapter)
    start = policy.reference(batch).logprobs
    train(policy, batch)
    policy.move_reference()
    moved = scores(policy, batch)
    assert torch.equal(policy.reference(batch).logprobs, moved)
    assert not torch.equal(moved, start)
    # A reference pass between forward and backward does not disturb the gradient.
    policy.train()
    loss = policy(batch).logprobs.sum()
    policy.reference(batch)
    loss.backward()
    train(policy, batch)
    assert torch.equal(policy.reference(batch).logprobs, moved)


def test_mixing_the_reference_of_full_training(llama, batch):
    policy, target = load(llama, adapter="none"), load(llama, adapter="none")
    expected = {name: p.detach().clone() for name, p in policy.named_parameters()}
    for mix in (0.6, 0.25):
        train(policy, batch)
        policy.move_reference(mix)
        for name, p in policy.named_parameters():
            expected[name] = mix * p.detach() + (1 - mix) * expected[name]
    target.load_state(expected)
    torch.testing.assert_close(policy.reference(batch).logprobs, scores(target, batch))


def test_mixing_the_reference_of_an_adapter(llama, batch):
    policy, target = load(llama), load(llama)
    start = policy.reference(batch).logprobs
    train(policy, batch, rate=0.5)
    now = {name: p.detach().clone() for name, p in policy.named_parameters()}
    policy.move_reference(0.6)
    # 0.6 (W + BA) + 0.4 W = W + (0.6 B) A
    first = {name: 0.6 * p if "lora_B" in name else p for name, p in now.items()}
    target.load_state(first)
    moved = policy.reference(batch).logprobs
    torch.testing.assert_close(moved, scores(target, batch))
    assert (moved - start).abs().max() > 0.01
    train(policy, batch, rate=0.5)
    policy.move_reference(0.25)
    now = {name: p.detach().clone() for name, p in policy.named_parameters()}
    target.load_state({name: 0.25 * now[name] + 0.75 * first[name] for name in now})
    torch.testing.assert_close(policy.reference(batch).logprobs, scores(target, batch))


def test_base_is_for_generating_too(llama, batch):
    for adapter in ("lora", "none"):
        policy = load(llama, adapter=adapter)
        ids = torch.tensor([[5, 6, 7]])
        asked = {"do_sample": False, "max_new_tokens": 5}
        start = policy.model.generate(ids, **asked)
        train(policy, batch, steps=5, rate=0.5)
        assert not torch.equal(policy.model.generate(ids, **asked), start)
        with policy.base() as model:
            assert model is policy.model
            assert torch.equal(model.generate(ids, **asked), start)


def test_no_reference_in_memory(llama, batch):
    policy = load(llama, adapter="none", reference=False)
    assert not policy.has_reference
    with pytest.raises(RunFailed, match="no reference"):
        policy.reference(batch)
    with pytest.raises(RunFailed, match="no reference"):
        policy.move_reference()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_saved_adapter_is_what_peft_loads(folder, batch, tmp_path, precision):
    from peft import AutoPeftModelForCausalLM

    policy = load(folder, precision=precision)
    train(policy, batch)
    assert policy.save(tmp_path) == "adapter"
    names = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    tolerance = 1e-5 if precision == "fp32" else 0.2
    with torch.no_grad():
        expected = textbook_logprobs(plain.base_model.model.eval(), batch)
    torch.testing.assert_close(scores(policy, batch), expected, atol=tolerance, rtol=1e-4)


def test_saved_model_is_what_transformers_loads(folder, batch, tmp_path):
    policy = load(folder, adapter="none", reference=False)
    train(policy, batch)
    assert policy.save(tmp_path) == "model"
    assert not list(tmp_path.rglob("*.bin"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["attn_pdrop"] == 0.1  # the model's own, though training went without
    assert "alignzoo" not in json.dumps(config)
    plain = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        expected = textbook_logprobs(plain, batch)
    torch.testing.assert_close(scores(policy, batch), expected, atol=1e-5, rtol=1e-5)
    tf.AutoTokenizer.from_pretrained(tmp_path / "model")


def test_chain_of_runs(llama, batch, tmp_path):
    first = load(llama)
    train(first, batch)
    one = run_folder(tmp_path / "one", first, str(llama), "lora")
    second = load(one)
    torch.testing.assert_close(
        second.reference(batch).logprobs, scores(first, batch), atol=1e-5, rtol=1e-5
    )
    train(second, batch)
    two = run_folder(tmp_path / "two", second, str(one), "lora")
    for adapter in ("lora", "none"):
        third = load(two, adapter=adapter)
        torch.testing.assert_close(
            scores(third, batch), scores(second, batch), atol=1e-5, rtol=1e-5
        )
    # Also from elsewhere, when run.json has a relative path that leads nowhere now.
    record = {"recipe": {"model": "./gone", "adapter": "lora"}}
    (two / "run.json").write_text(json.dumps(record))
    torch.testing.assert_close(
        scores(load(two), batch), scores(second, batch), atol=1e-5, rtol=1e-5
    )
    whole = run_folder(tmp_path / "whole", load(two, adapter="none"), str(two), "none")
    torch.testing.assert_close(
        scores(load(whole), batch), scores(second, batch), atol=1e-5, rtol=1e-5
    )


def test_a_run_as_it_was_left(llama, batch, tmp_path):
    model = str(llama)
    for step, adapter in enumerate(["lora", "qlora", "qlora", "none"]):
        trained = load(model, adapter=adapter)
        train(trained, batch)
        path = run_folder(tmp_path / f"run{step}", trained, model, adapter)
        left = load(path, adapter=None, reference=False)
        now = scores(trained, batch)
        torch.testing.assert_close(scores(left, batch), now, atol=1e-5, rtol=1e-5)
        assert left.parameters() == []
        assert left.has_reference == (adapter != "none")
        if left.has_reference:
            torch.testing.assert_close(
                left.reference(batch).logprobs,
                trained.reference(batch).logprobs,
                atol=1e-5,
                rtol=1e-5,
            )
        # The next run starts where this one ended, also after 4 bits.
        after = load(path).reference(batch).logprobs
        torch.testing.assert_close(after, now, atol=1e-4, rtol=1e-4)
        model = str(path)


def test_a_model_as_it_is(llama, batch):
    policy = load_policy(ModelSpec(str(llama), device=torch.device("cpu")))
    torch.testing.assert_close(scores(policy, batch), load(llama).reference(batch).logprobs)
    assert not policy.has_reference
    assert policy.trainable_count == 0


def test_weights_already_quantised(llama, tmp_path, batch):
    small = load(llama, adapter="qlora")
    path = copy_of(llama, tmp_path / "small")
    expected = scores(small, batch)
    small.model.unload().save_pretrained(path)
    torch.testing.assert_close(scores(load(path), batch), expected)
    assert "quantised" in message(path, adapter="none")


def test_bfloat16_keeps_what_is_trained_in_float32(llama, batch):
    exact = scores(load(llama), batch)
    for adapter in ("lora", "none"):
        policy = load(llama, adapter=adapter, precision="bf16")
        assert policy.note is None
        assert {p.dtype for p in policy.parameters()} == {torch.float32}
        out = policy(batch)
        assert out.logprobs.dtype == torch.float32
        assert torch.equal(out.logprobs, policy.reference(batch).logprobs)
        assert float((out.logprobs - exact).detach().abs().mean()) < 0.1
        train(policy, batch)


def test_gradient_checkpointing(llama, batch):
    grads = []
    for on in (False, True):
        policy = load(llama, gradient_checkpointing=on)
        policy.train()
        policy(batch).logprobs.sum().backward()
        grads.append({name: p.grad for name, p in policy.named_parameters()})
    torch.testing.assert_close(*grads)


def message(model, **changes) -> str:
    with pytest.raises(BadInput) as error:
        load(model, **changes)
    assert "\n  " in error.value.message or error.value.hint is None
    return error.value.message


def test_wrong_models(tmp_path, llama, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds nothing" in message(empty)
    assert "did you mean" in message(str(tmp_path / "emptty"))
    assert str(empty) in message(str(tmp_path / "emptty"))
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'empty'" in message("./emptyy")
    assert "there is no folder" in message("a/b/c")
    assert "neither a folder nor a name" in message("what is this")
    (tmp_path / "file").write_text("")
    assert "got a file" in message(tmp_path / "file")

    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"status": "failed", "recipe": {"model": "x"}}))
    assert "no result" in message(run)
    assert "'failed'" in message(run)
    (run / "run.json").write_text("{")
    assert "cannot be read" in message(run)
    (run / "run.json").write_text("{}")
    assert "does not name the model" in message(run)

    broken = copy_of(llama, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    assert "no weights" in message(broken)
    load(broken, random_init=True)
    (broken / "pytorch_model.bin").write_bytes(b"")
    assert "pickles" in message(broken)
    for file in broken.glob("tokenizer*"):
        file.unlink()
    assert "no tokenizer" in message(broken)
    damaged = copy_of(llama, tmp_path / "damaged")
    (damaged / "config.json").write_text("{}")
    assert "cannot be loaded" in message(damaged)


def test_a_run_that_is_its_own_base(tmp_path, llama, batch):
    run = run_folder(tmp_path / "run", load(llama), str(tmp_path / "run"), "lora")
    assert "its own ancestor" in message(run)


def test_encoder_decoder(tmp_path, llama):
    path = copy_of(llama, tmp_path / "t5")
    tf.T5Config(vocab_size=97, d_model=16, num_layers=1).save_pretrained(path)
    assert "encoder-decoder" in message(path)


def test_custom_code_needs_the_flag(tmp_path, llama):
    path = copy_of(llama, tmp_path / "custom")
    config = json.loads((path / "config.json").read_text())
    config["model_type"] = "not_of_transformers"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "code.py").write_text("raise SystemExit('this ran')")
    assert "ships custom code; add --trust-remote-code to run it" in message(path)


def test_keywords_of_before(llama, batch):
    with pytest.warns(DeprecationWarning, match="ModelSpec"):
        policy = load_policy(str(llama), adapter="lora", scratch=True, seed=1)
    assert policy.fingerprint == load(llama, random_init=True, seed=1).fingerprint
    with pytest.warns(DeprecationWarning, match="log_sum_p2"):
        outputs = policy(batch, collision=True)
    with pytest.warns(DeprecationWarning, match="log_sum_p2"):
        assert outputs.collision is outputs.log_sum_p2 is not None
    with pytest.raises(TypeError, match="seed"):
        load_policy(ModelSpec(str(llama)), seed=1)


def test_adapter_of_another_model(tmp_path, llama, folder):
    load(folder).save(tmp_path)
    assert "fit" in message(run_of(tmp_path, llama))


def run_of(path: Path, model: Path) -> Path:
    (path / "run.json").write_text(json.dumps({"recipe": {"model": str(model)}}))
    return path


def test_four_bits_need_a_device_that_has_them(llama):
    assert "4-bit" in message(llama, adapter="qlora", device=torch.device("mps"))


def test_offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    assert "cannot be reached" in message("nobody/no-such-model-at-all")


def copy_of(source: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(source, target))

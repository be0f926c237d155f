"""Every kind of adapter in linear layers: nothing at the start, gone when off, kept when saved."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest
import torch
import transformers as tf
from peft.tuners.lora import LoraLayer
from policy_models import SIZES, build
from test_policy import folder, llama, load, message, run_folder, scores, train  # noqa: F401

from alignzoo.errors import BadInput
from alignzoo.policy.adapters import (
    adapter_parameters,
    add_adapter,
    base_parameters,
    compile_when_called,
    keep_input_precision,
)
from alignzoo.policy.flops import AdapterWork, Products, profile, with_adapter
from alignzoo.policy.kinds import ADAPTER_OPTIONS, ADAPTERS, VERA_RANK, AdapterSettings
from alignzoo.policy.policy import checksum
from alignzoo.policy.probe import textbook_logprobs
from alignzoo.recipe import Recipe, resolve

INSIDE = [name for name, kind in ADAPTERS.items() if not kind.virtual and name != "none"]
NEW = [name for name in INSIDE if name not in ("lora", "qlora")]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def moved(policy, batch):
    """The policy away from its start, however slowly its kind learns."""
    train(policy, batch)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=draw))
    return scores(policy, batch)


def test_torchs_compiler_is_imported_by_what_is_compiled_alone():
    code = (
        "import sys, torch\n"
        "from alignzoo.policy.adapters import compile_when_called\n"
        "print('bitsandbytes' in sys.modules, 'torch._inductor.compile_fx' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "False"]


def test_a_function_is_compiled_at_its_first_call(monkeypatch):
    compiled = []

    def compile_now(function, **options):
        compiled.append(options)
        return lambda x: 2 * function(x)

    monkeypatch.setattr(torch, "compile", compile_now)
    with compile_when_called():
        add = torch.compile(lambda x: x + 1, dynamic=True)
    assert torch.compile is compile_now and compiled == []
    assert (add(1), add(2)) == (4, 6)
    assert compiled == [{"dynamic": True}]


def test_the_table_needs_neither_torch_nor_peft():
    code = (
        "import sys; from alignzoo.policy.kinds import ADAPTERS\n"
        "heavy = {'torch', 'peft', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("config", [tf.PhimoeConfig, tf.Llama4TextConfig])
def test_a_router_that_returns_a_tuple_gets_no_adapter(config):
    sizes = {**SIZES, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    model = tf.AutoModelForCausalLM.from_config(config(**sizes, head_dim=8)).eval()
    wrapped = add_adapter(model, "lora", AdapterSettings(rank=2, alpha=4.0))
    names = list(adapter_parameters(wrapped))
    assert names and not any("router" in name for name in names)
    with torch.no_grad():
        assert wrapped(input_ids=torch.arange(3, 9)[None]).logits.isfinite().all()


def test_an_adapter_that_peft_cannot_load_again_is_refused():
    sizes = {**SIZES, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
    config = tf.LagunaConfig(**sizes, head_dim=8, moe_intermediate_size=32)
    model = tf.AutoModelForCausalLM.from_config(config)
    with pytest.raises(BadInput, match=r"PEFT cannot load an adapter on a laguna model again"):
        add_adapter(model, "lora", AdapterSettings(rank=2, alpha=4.0))


def test_the_recipe_names_them_all():
    hint = get_type_hints(Recipe)["adapter"]
    assert set(get_args(hint)) == set(ADAPTERS)
    for kind in ADAPTERS.values():
        assert kind.options <= ADAPTER_OPTIONS
        assert kind.rate > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", NEW)
def test_nothing_at_the_start(kind, precision, llama, batch):  # noqa: F811
    policy = load(llama, adapter=kind, precision=precision)
    policy.train()
    out, reference = policy(batch).logprobs, policy.reference(batch).logprobs
    assert torch.equal(out, reference)  # so that DPO starts at exactly ln 2
    margin = (out - reference).sum(1)
    assert float(-torch.nn.functional.logsigmoid(margin.detach()).mean()) == pytest.approx(
        math.log(2)
    )
    out.sum().backward()
    trained = policy.parameters()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained)
    assert any(p.grad.abs().max() > 0 for p in trained)


@pytest.mark.parametrize("kind", NEW)
def test_trained_saved_and_gone_on_from(kind, llama, batch, tmp_path):  # noqa: F811
    from peft import AutoPeftModelForCausalLM

    policy = load(llama, adapter=kind)
    start = policy.reference(batch).logprobs
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    train(policy, batch, rate=0.5 if kind != "rslora" else 0.05)
    assert any(not torch.equal(before[name], p) for name, p in policy.named_parameters())
    assert scores(policy, batch).sum() > start.sum()
    now = moved(policy, batch)
    assert torch.equal(policy.reference(batch).logprobs, start)
    one = run_folder(tmp_path / "one", policy, str(llama), kind)
    plain = AutoPeftModelForCausalLM.from_pretrained(one / "adapter", dtype=torch.float32)
    with torch.no_grad():
        expected = textbook_logprobs(plain.eval(), batch)
    torch.testing.assert_close(now, expected, **CLOSE)
    left = load(one, adapter=None)
    assert left.parameters() == []
    torch.testing.assert_close(scores(left, batch), now, **CLOSE)
    torch.testing.assert_close(left.reference(batch).logprobs, start, **CLOSE)
    assert left.flops == policy.flops
    for after in ("lora", kind):
        second = load(one, adapter=after)
        torch.testing.assert_close(second.reference(batch).logprobs, now, **CLOSE)


@pytest.mark.parametrize("kind", NEW)
def test_moving_the_reference(kind, llama, batch):  # noqa: F811
    policy, target = load(llama, adapter=kind), load(llama, adapter=kind)
    start = {name: p.detach().clone() for name, p in target.named_parameters()}
    base = policy.reference(batch).logprobs
    policy.move_reference(0.5)  # to itself
    torch.testing.assert_close(policy.reference(batch).logprobs, base, **CLOSE)
    moved(policy, batch)
    policy.move_reference(0.6)
    if kind != "rslora":  # of LoRA, A at the start is as good as any: `test_policy` has it
        mixed = {
            name: 0.6 * p.detach() + 0.4 * start[name] for name, p in policy.named_parameters()
        }
        target.load_state(mixed)
        torch.testing.assert_close(policy.reference(batch).logprobs, scores(target, batch), **CLOSE)
    other = load(llama, adapter=kind)
    other.load_state({name: t.clone() for name, t in policy.state().items()})
    assert torch.equal(other.reference(batch).logprobs, policy.reference(batch).logprobs)
    policy.move_reference()
    assert torch.equal(policy.reference(batch).logprobs, scores(policy, batch))


@pytest.mark.parametrize("kind", NEW)
def test_the_seed_decides(kind, llama):  # noqa: F811
    first, again = (load(llama, adapter=kind).state() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_work_of_an_adapter():
    """Two layers with q and o 32 x 32, k and v 16 x 32, and three of 32 x 64."""
    plain = profile(build("llama"), trains_base=False)
    sides = 2 * (2 * 64 + 2 * 48 + 3 * 96)  # input and output sizes of all linear layers
    dense = plain.backbone
    cases = {
        "lora": Products(2 * sides),
        "ia3": Products(),
        "loha": Products(dense, 2 * 2 * dense),
        "lokr": Products(dense, 2 * (4 * 64 + 4 * 32 + 6 * 64)),  # a second factor of rank 2
        "vera": Products(VERA_RANK * sides),
    }
    for kind, expected in cases.items():
        adapted = add_adapter(build("llama"), kind, AdapterSettings(rank=2))
        flops = with_adapter(plain, adapted)
        assert flops.adapter.forward == expected, kind
    dora = with_adapter(plain, add_adapter(build("llama"), "dora", AdapterSettings(rank=2)))
    inputs = 2 * (4 * 64 * 32 - 2 * 16 * 32 + 2 * 96 * 32 + 96 * 64)  # (in + out) * in
    assert dora.adapter == AdapterWork(
        Products(2 * sides, 2 * inputs), Products(6 * sides, 2 * inputs)
    )


def test_where_they_do_not_fit(folder):  # noqa: F811
    for kind in ("loha", "lokr", "oft"):
        assert f"--adapter {kind} does not fit a gpt2 model" in message(folder, adapter=kind)
    for name, kind in (("phi3", "ia3"), ("mixtral", "dora"), ("mamba", "vera")):
        with pytest.raises(BadInput, match=f"{kind} does not fit a"):
            add_adapter(build(name), kind)


@pytest.mark.parametrize(
    ("adapter", "option", "value", "users"),
    [
        ("ia3", "lora_rank", 8, "lora, qlora, dora, rslora, loha, lokr"),
        ("loha", "lora_dropout", 0.1, "lora, qlora, dora, rslora"),
        ("lora", "virtual_tokens", 5, "prompt, prefix"),
        ("none", "lora_alpha", 8.0, "lora, qlora, dora, rslora, loha, lokr"),
    ],
)
def test_settings_of_another_kind(adapter, option, value, users):
    with pytest.raises(BadInput, match=f"does not apply to --adapter {adapter}") as error:
        resolve({"algorithm": "sft", "adapter": adapter, option: value})
    assert error.value.hint == f"it applies to {users}"
    for kind in users.split(", "):
        resolve({"algorithm": "sft", "adapter": kind, option: value})


SMALL = {"lora_rank": 2, "virtual_tokens": 3}


@pytest.mark.parametrize("kind", [name for name in ADAPTERS if not ADAPTERS[name].four_bit])
def test_an_adapter_is_no_part_of_the_base(kind, llama):  # noqa: F811
    """A reference is looked up by the base's weights: adapters of any kind and seed leave them."""
    facts = load(llama, adapter="none").reference_facts()
    for seed in (0, 1):
        policy = load(llama, adapter=kind, seed=seed, **SMALL)
        assert policy.reference_facts() == facts
        assert kind == "none" or adapter_parameters(policy.model)
        if not ADAPTERS[kind].virtual and kind != "none":
            critic = load(llama, adapter=kind, seed=seed, values="own", **SMALL)
            assert critic.reference_facts() == facts
    assert checksum(build("llama", seed=7)) == facts["weights"]


def test_four_bits_are_a_base_of_their_own(llama):  # noqa: F811
    found = [load(llama, adapter="qlora", seed=seed).reference_facts() for seed in (0, 1)]
    assert found[0] == found[1] != load(llama).reference_facts()


@pytest.mark.parametrize("kind", [name for name in ADAPTERS if name != "none"])
def test_the_parameters_of_an_adapter_are_those_trained(kind, llama):  # noqa: F811
    policy = load(llama, adapter=kind, **SMALL)
    trained = dict(policy.named_parameters())
    assert adapter_parameters(policy.model).keys() >= trained.keys() != set()
    base = base_parameters(policy.model)
    assert base.keys() == dict(build("llama").named_parameters()).keys()


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_inputs_kept_in_bf16_give_the_same_numbers(kind, batch):
    """They are narrowed either way; only DoRA reads them elsewhere too."""
    model = add_adapter(build("llama").bfloat16(), kind, AdapterSettings(rank=4))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    ids = batch.tokens[:1, :3]
    found = []
    for keep in (False, True):
        if keep:
            keep_input_precision(model)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
        model.zero_grad()
        logits.float().square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    kept = {m.cast_input_dtype_enabled for m in model.modules() if isinstance(m, LoraLayer)}
    assert kept == {kind == "dora"}

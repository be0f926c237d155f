"""Which weights decay."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from torch import nn

from alignzoo.policy import ModelSpec, load_policy
from alignzoo.training.optimizer import decays, make_optimizer


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(list(model.named_parameters()), 0.1, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, p in model.named_parameters():
        kept = 1.0 if p.ndim == 1 else 1 - 0.1 * 0.5
        assert torch.allclose(p, kept * before[name]), name


def test_all_of_one_kind():
    for model in (nn.LayerNorm(3), nn.Linear(3, 3, bias=False)):
        optimizer = make_optimizer(list(model.named_parameters()), 0.1, 0.5)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
            list(model.parameters())
        )


@pytest.mark.parametrize(
    ("kind", "spared"),
    [
        ("lora", set()),
        ("dora", {"lora_magnitude_vector"}),
        ("loha", set()),
        ("lokr", set()),
        ("vera", {"vera_lambda_b", "vera_lambda_d"}),
        ("oft", set()),
        ("ia3", {"ia3_l"}),
        ("prompt", set()),
        ("prefix", set()),
    ],
)
def test_what_decays_of_an_adapter(kind, spared):
    """A factor of rank 1 is a matrix, although it has the shape of IA3's vectors."""
    policy = load_policy(ModelSpec("zoo-tiny", adapter=kind, lora_rank=1, values="shared"))
    kept = {name for name, p in policy.named_parameters() if not decays(name, p)}
    parts = {part for name in kept for part in name.split(".")}
    assert "value_head" in parts and "value_head.bias" in kept  # its weight decays
    assert {part for part in parts if part.startswith(("lora_", "vera_", "ia3_"))} == spared
    assert len(kept) > 4 or not spared  # in every layer
    assert len(kept) == 1 or spared


def test_vectors_that_are_stored_as_matrices():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 40}
    configs = [
        tf.CohereConfig(
            **sizes, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32,
            use_qk_norm=True,
        ),
        tf.GptOssConfig(
            **sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            intermediate_size=32, num_local_experts=2,
        ),
        tf.MambaConfig(**sizes, state_size=4),
    ]  # fmt: skip
    found = set()
    for config in configs:
        named = list(tf.AutoModelForCausalLM.from_config(config).named_parameters())
        found |= {name.split(".", 3)[3] for name, p in named if p.ndim > 1 and not decays(name, p)}
    assert found == {
        "self_attn.q_norm.weight", "self_attn.k_norm.weight", "mixer.A_log",
        "mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias",
    }  # fmt: skip

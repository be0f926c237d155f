"""Tiny configurations of every type of causal language model that transformers has.

A configuration is the type's own default with the sizes below, where it has such an attribute, and
what `configs.yaml` says of the type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

HERE = Path(__file__).parent
# Sliding windows are shorter than the sequences. Weights are large, so that a look at a wrong token
# is seen in the numbers.
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sliding_window": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "state_size": 4,
    "is_decoder": True,
}


TEXT_WITH_PARTS = ("dbrx", "mpt")  # not of images or sounds


def model_types() -> list[str]:
    """Return the types of causal language models that transformers has, in alphabetical order.

    Models of images and sounds are left out: the language model in each is a type of its own.
    """
    return [
        name
        for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        if not CONFIG_MAPPING[name].sub_configs or name in TEXT_WITH_PARTS
    ]


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return a configuration of this type that makes a model of some thousand weights."""
    own = yaml.safe_load((HERE / "configs.yaml").read_text(encoding="utf-8")).get(model_type, {})
    return CONFIG_MAPPING[model_type](**sizes_of(CONFIG_MAPPING[model_type], own))


def sizes_of(kind: type[PreTrainedConfig], own: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes that a configuration takes, those of its parts (text, images) included.

    `own` is what `configs.yaml` says; null leaves an attribute as it is by default.
    """
    default = {**kind.attribute_map, **kind().to_dict()}
    found = {name: size for name, size in SIZES.items() if name in default}
    if "qk_rope_head_dim" in default:  # heads are made of latent vectors, each with its own
        found |= {"head_dim": None, "num_key_value_heads": found["num_attention_heads"]}
    for name, part in kind.sub_configs.items():
        if isinstance(part, type) and issubclass(part, PreTrainedConfig):
            found[name] = sizes_of(part, {})
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] |= value
        else:
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}

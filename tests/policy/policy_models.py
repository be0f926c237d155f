"""Tiny random models of many families."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

# Large weights, so that looking at a wrong token is seen in the numbers.
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def configs() -> dict[str, tf.PreTrainedConfig]:
    """Sliding windows are shorter than the batch's sequences."""
    gpt2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **IDS}
    opt = {k: v for k, v in SIZES.items() if k not in ("intermediate_size", "initializer_range")}
    return {
        "llama": tf.LlamaConfig(**SIZES, **HEADS),
        "qwen2": tf.Qwen2Config(
            **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=4,
            max_window_layers=1,
        ),
        "qwen3": tf.Qwen3Config(**SIZES, **HEADS, tie_word_embeddings=True),
        "gpt2": tf.GPT2Config(**gpt2, initializer_range=0.2),
        "gemma": tf.GemmaConfig(**SIZES, **HEADS),
        "gemma2": tf.Gemma2Config(
            **SIZES, **HEADS, sliding_window=4, attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
        "gemma3": tf.Gemma3TextConfig(
            **SIZES, **HEADS, sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "mistral": tf.MistralConfig(**SIZES, **HEADS, sliding_window=4),
        "phi3": tf.Phi3Config(**SIZES, num_key_value_heads=2),
        "opt": tf.OPTConfig(**opt, ffn_dim=64, word_embed_proj_dim=16, init_std=0.2),
        "cohere": tf.CohereConfig(**SIZES, num_key_value_heads=2, logit_scale=0.25),
        "granite": tf.GraniteConfig(**SIZES, num_key_value_heads=2, logits_scaling=4.0),
        "mixtral": tf.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4),
        "falcon": tf.FalconConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
            initializer_range=0.2, **IDS,
        ),
        "mamba": tf.MambaConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4, **IDS
        ),
    }  # fmt: skip


def build(name: str, seed: int = 0) -> tf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tf.AutoModelForCausalLM.from_config(configs()[name]).eval()


def tokenize(path: Path) -> None:
    """Save a tokenizer of 97 words beside a model."""
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w2", bos_token="w1")
    fast.save_pretrained(path)

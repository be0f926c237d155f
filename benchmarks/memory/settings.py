"""The settings of the study: algorithm, adapter, model and length."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REAL = Path(__file__).parents[1] / "real" / "make_model.py"
MODELS = {"135m": "SmolLM2-135M", "qwen": "random Qwen2 (68M)"}

FULL = {"adapter": "none"}


@dataclass(frozen=True)
class Setting:
    """A run on rows of about `words` tokens in all; with `default_too`, measured twice."""

    algorithm: str
    model: str = "135m"
    words: int = 450
    recipe: dict[str, Any] = field(default_factory=dict)
    default_too: bool = False


DRAWN = {"max_new_tokens": 64, "options": {"group_size": 4}, "reward": ["length,most=64"]}
SETTINGS = {
    "dpo, LoRA": Setting("dpo", default_too=True),
    "sft, all weights": Setting("sft", words=300, recipe=FULL, default_too=True),
    "dpo, QLoRA": Setting("dpo", recipe={"adapter": "qlora"}),
    "grpo, LoRA": Setting("grpo", words=150, recipe=DRAWN, default_too=True),
    "sft, LoRA, long rows": Setting("sft", words=900),
    "sft, DoRA": Setting("sft", words=300, recipe={"adapter": "dora"}),
    "sft, LoRA, gradient checkpointing": Setting(
        "sft", words=900, recipe={"gradient_checkpointing": True}
    ),
    "dpo, all weights": Setting("dpo", words=300, recipe=FULL),
    "dpo, LoRA, short micro-batches": Setting("dpo", words=200, recipe={"micro_tokens": 300}),
    "reward, LoRA": Setting("reward"),
    "ppo, LoRA": Setting("ppo", words=150, recipe=DRAWN),
    "sft, LoRA, large vocabulary": Setting("sft", "qwen", words=900),
    "dpo, all weights, large vocabulary": Setting("dpo", "qwen", recipe=FULL),
    "grpo, LoRA, large vocabulary": Setting("grpo", "qwen", words=300, recipe=DRAWN),
}


def make_model(name: str) -> Path:
    """Return the folder of a model, made at the first call."""
    if name == "135m":
        made = subprocess.run(
            [sys.executable, str(REAL)], capture_output=True, text=True, check=True
        )
        return Path(made.stdout.strip().splitlines()[-1])
    folder = Path(tempfile.gettempdir()) / "alignzoo-memory-qwen"
    if not (folder / "model.safetensors").is_file():
        make_qwen(folder)
    return folder


def make_qwen(folder: Path) -> None:
    """Write a random Qwen2 of four layers with a vocabulary of 100,000 and the tokenizer of the
    other model."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=100_000,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(make_model("135m")).save_pretrained(folder)

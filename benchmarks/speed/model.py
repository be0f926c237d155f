"""The model that both libraries train: random weights, and a tokenizer with one token per word.

It is read from a folder, like a user's model. The words are `t4 t5 ...`, so that a row of n words
has n tokens in both libraries.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

SPECIAL = ("<unk>", "<bos>", "<eos>", "<pad>")
FIRST_WORD = len(SPECIAL)  # ids below are special; the word of id n is "t" + n
HEADS = ("score_head.", ".score.")  # a reward model's last layer, here and in TRL
RANK, ALPHA = 16, 32


def make_model(
    folder: Path,
    vocabulary: int,
    layers: int = 4,
    dtype: torch.dtype = torch.float32,
    **shape: int,
) -> None:
    """Write a Qwen3 with `vocabulary` tokens and its tokenizer to `folder`.

    Its hidden size is 256, unless `shape` has other settings of its configuration.
    """
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": 1024,
    }
    config = Qwen3Config(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **(sizes | shape),
    )
    torch.manual_seed(0)
    # A GPU draws the weights of a large model in a moment, a CPU in half a minute.
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    make_word_tokenizer(vocabulary).save_pretrained(folder)


def make_word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one id per word; it adds a BOS and has no chat template."""
    words = dict.fromkeys([*SPECIAL, *(f"t{n}" for n in range(FIRST_WORD, vocabulary))])
    ids = {word: n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        model_max_length=1024,
    )


@torch.no_grad()
def fill_trained(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[int, float]:
    """Fill the trained weights with numbers drawn by their names, equal in both libraries.

    Return the number of weights and the sum of their absolute values. Both libraries start with
    B = 0, where each DPO loss is ln 2 and the gradient of A is 0: hardly anything would be
    compared. A reward model's head is filled too.
    """
    count, total = 0, 0.0
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if any(head in name for head in HEADS):
            name = "head"
        elif "lora_" not in name:
            raise ValueError(f"{name} is trained, but is not part of a LoRA adapter")
        draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        scale = 0.05 if "lora_B" in name else 1 / math.sqrt(parameter.shape[1])
        values: Tensor = torch.randn(parameter.shape, generator=draw) * scale
        parameter.copy_(values)
        count += parameter.numel()
        total += float(values.double().abs().sum())
    return count, total

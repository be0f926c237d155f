"""LoRA on a model, new or saved, and what 4-bit weights need."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from alignzoo.errors import BadInput
from alignzoo.policy.quiet import quiet

with quiet():  # bitsandbytes complains of an optional kernel while it is imported
    from peft import LoraConfig, PeftModel, get_peft_model

FOUR_BIT_DEVICES = ("cpu", "cuda", "xpu")
# Their kernels read the weight of `out_proj` past the adapter, so peft refuses to put one there.
RECURRENT = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")


def add_lora(
    model: PreTrainedModel, rank: int, alpha: float, dropout: float, seed: int
) -> PeftModel:
    """LoRA on every linear layer but the head. Its output starts at exactly zero."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float does as well
        lora_dropout=dropout,
        target_modules="all-linear",
        exclude_modules=["out_proj"] if model.config.model_type in RECURRENT else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def put_on(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A saved adapter, frozen, on the model it was trained on."""
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(
            f"the adapter does not fit its base model: {reason}", where=str(folder)
        ) from None


def four_bit(device: torch.device) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computed in bfloat16, or on a CPU in float32."""
    if device.type not in FOUR_BIT_DEVICES:
        raise BadInput(
            f"4-bit weights do not run on {device.type}",
            hint="use --adapter lora, or a machine with one of " + ", ".join(FOUR_BIT_DEVICES),
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(device),
    )


def keep_layout(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    It does so in place, on the first forward in evaluation mode: the scales are rounded, so the
    model would change in the middle of a run, and layers whose input is no multiple of 64 fail.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def compute_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16

"""Adapters on a model, new or saved, and what 4-bit weights need."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from alignzoo.errors import BadInput, first_line
from alignzoo.policy.locate import quiet

with quiet():  # bitsandbytes complains of an optional kernel while it is imported
    from peft import (
        IA3Config,
        LoHaConfig,
        LoKrConfig,
        LoraConfig,
        OFTConfig,
        PeftConfig,
        PeftModel,
        PrefixTuningConfig,
        PromptTuningConfig,
        VeraConfig,
        get_peft_model,
    )
    from peft.utils.integrations import dequantize_module_weight

FOUR_BIT_DEVICES = ("cpu", "cuda", "xpu")
# Their kernels read the weight of `out_proj` past the adapter, so peft refuses to put one there.
RECURRENT = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
INSTEAD = "use --adapter lora"
VALUE = "value"  # the adapter that a critic of its own has
VERA_RANK = 256  # of its frozen projections; peft's and the paper's


def add_adapter(
    model: PreTrainedModel | PeftModel,
    kind: str,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    virtual_tokens: int = 20,
    seed: int = 0,
) -> PeftModel:
    """A new adapter of that kind (`alignzoo.kinds`). In linear layers, it changes nothing yet.

    On a model that has one, it is a second one beside it, called `VALUE` and at rest.
    """
    recurrent = model.config.model_type in RECURRENT
    config: Any = _config(kind, recurrent, rank, alpha, dropout, virtual_tokens, seed)
    if kind == "prompt":
        config.token_dim = model.get_input_embeddings().embedding_dim
        config.num_attention_heads = 1  # asked for, though it has nothing to do with them
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        torch.manual_seed(seed)
        try:
            if isinstance(model, PeftModel):
                adapted = model
                _add_beside(adapted, config)
            else:
                adapted = get_peft_model(model, config)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"--adapter {kind} does not fit a {model.config.model_type} model: "
                + first_line(error),
                hint=INSTEAD,
            ) from None
    if kind == "dora":
        _measure_magnitudes(adapted)
    return adapted


def _config(
    kind: str,
    recurrent: bool,
    rank: int,
    alpha: float,
    dropout: float,
    virtual_tokens: int,
    seed: int,
) -> PeftConfig:
    """PEFT's description of it. In every linear layer but the head, where the kind does not say
    otherwise: IA3 goes where its authors put it, peft knows which layers these are."""
    if kind == "prompt":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
    if kind == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
    if kind == "ia3":
        return IA3Config(task_type="CAUSAL_LM")
    common: dict[str, Any] = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    if kind == "vera":
        if recurrent:
            raise BadInput("--adapter vera does not fit a recurrent model", hint=INSTEAD)
        return VeraConfig(**common, r=VERA_RANK, projection_prng_key=seed)
    common["exclude_modules"] = ["out_proj"] if recurrent else None
    if kind == "oft":
        return OFTConfig(**common)
    if kind == "loha":
        return LoHaConfig(**common, r=rank, alpha=alpha)  # type: ignore[arg-type]  # a float does
    if kind == "lokr":
        return LoKrConfig(**common, r=rank, alpha=alpha)  # type: ignore[arg-type]
    return LoraConfig(
        **common,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        use_dora=kind == "dora",
        use_rslora=kind == "rslora",
    )


@torch.no_grad()
def _measure_magnitudes(model: PeftModel) -> None:
    """DoRA's magnitudes in float32, as its forward pass computes them; peft rounds them to the
    precision of the weights, so that the adapter would begin by changing them a little."""
    module: Any
    for module in model.modules():
        for layer in getattr(module, "lora_magnitude_vector", {}).values():
            weight = dequantize_module_weight(module.get_base_layer()).float()
            norms = layer.get_weight_norm(weight, torch.zeros(()), scaling=0.0)
            layer.weight.data = norms.to(layer.weight.device)


def _add_beside(model: PeftModel, config: PeftConfig) -> None:
    """A second adapter, at rest, to be trained as well; peft would freeze the one or the other."""
    model.add_adapter(VALUE, config)
    model.set_adapter(VALUE)
    second = [p for p in model.parameters() if p.requires_grad]
    model.set_adapter("default")
    for parameter in second:
        parameter.requires_grad_(True)


@contextmanager
def value_adapter_on(model: PeftModel) -> Iterator[None]:
    """Inside it `VALUE` is the adapter that computes."""
    with still_trained(model):
        model.set_adapter(VALUE)
        try:
            yield
        finally:
            model.set_adapter("default")


@contextmanager
def still_trained(model: PeftModel) -> Iterator[None]:
    """What is trained before it is trained after it: of two adapters, peft freezes the one that is
    at rest whenever it switches one on."""
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def put_on(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A saved adapter, frozen, on the model it was trained on."""
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = first_line(error)
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

"""Adapters on a model, new or saved, and what 4-bit weights need."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from alignzoo.errors import LONGEST, BadInput, first_line, one_line
from alignzoo.policy.accounting import check_adapter_keys, check_finite
from alignzoo.policy.kinds import ADAPTERS, INSTEAD, AdapterSettings
from alignzoo.policy.locate import ADAPTER_WEIGHTS, quiet_libraries
from alignzoo.policy.weight_files import read_header


@contextmanager
def compile_when_called() -> Iterator[None]:
    """Let functions that are compiled in the block be compiled when they are first called."""
    compile_now = torch.compile

    def compile_later(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled = cache(lambda: compile_now(function, **options))
        return lambda *args, **keywords: compiled()(*args, **keywords)

    torch.compile = compile_later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_now


# PEFT imports bitsandbytes, which warns of an optional kernel, and compiles functions that few runs
# call: to import torch's compiler takes half a second.
with quiet_libraries(), compile_when_called():
    from peft import (
        PeftConfig,
        PeftModel,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.integrations import dequantize_module_weight

FOUR_BIT_DEVICES = ("cpu", "cuda", "xpu")
VALUE = "value"  # the adapter of a critic of its own


def add_adapter(
    model: PreTrainedModel | PeftModel,
    kind: str,
    settings: AdapterSettings = AdapterSettings(),  # noqa: B008  # frozen
) -> PeftModel:
    """Add a new adapter of a kind of `ADAPTERS`; in linear layers, it changes nothing yet.

    A model that has an adapter gets a second one beside it, called `VALUE` and switched off.
    BadInput if the kind does not fit the model.
    """
    build = ADAPTERS[kind].build
    assert build is not None, f"{kind} is no adapter"
    config = build(model, settings)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        torch.manual_seed(settings.seed)
        try:
            if isinstance(model, PeftModel):
                adapted = model
                _add_value_adapter(adapted, config)
            else:
                adapted = get_peft_model(model, config)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"--adapter {kind} does not fit a {model.config.model_type} model: "
                + first_line(error),
                hint=INSTEAD,
            ) from None
    if not config.is_prompt_learning:
        _check_names(adapted)
    _measure_magnitudes(adapted)
    return adapted


def _check_names(model: PeftModel) -> None:
    """Raise BadInput if PEFT would not find the adapter's tensors again in a file of its own.

    It renames them as transformers renames weights of this type, which can go wrong (Laguna).
    """
    # Read into the adapter that they come from, they change nothing.
    stored = get_peft_model_state_dict(model, save_embedding_layers=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = set_peft_model_state_dict(model, stored)
    if found.unexpected_keys:
        raise BadInput(
            f"PEFT cannot load an adapter on a {model.config.model_type} model again: it finds no "
            f"layer for {found.unexpected_keys[0]}",
            hint="use --adapter none",
        )


@torch.no_grad()
def _measure_magnitudes(model: PeftModel) -> None:
    """Set DoRA's magnitudes, if any, in float32, as its forward pass computes them.

    PEFT rounds them to the precision of the weights, so the adapter would begin by changing these
    slightly.
    """
    module: Any
    for module in model.modules():
        for layer in getattr(module, "lora_magnitude_vector", {}).values():
            weight = dequantize_module_weight(module.get_base_layer()).float()
            norms = layer.get_weight_norm(weight, torch.zeros(()), scaling=0.0)
            layer.weight.data = norms.to(layer.weight.device)


def keep_input_precision(model: nn.Module) -> None:
    """Let LoRA layers take inputs in half precision as they are.

    PEFT widens them to the adapter's single precision first. Under autocast, each product then
    narrows them again: two copies of every input for the same numbers. Measured on an H200 (0.6B,
    pairs, 7,700 tokens), a step takes as long without them, and a tenth less memory.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module.cast_input_dtype_enabled = False


def _add_value_adapter(model: PeftModel, config: PeftConfig) -> None:
    """Add a second adapter, switched off, with both trainable; PEFT would freeze one of them."""
    model.add_adapter(VALUE, config)
    model.set_adapter(VALUE)
    second = [p for p in model.parameters() if p.requires_grad]
    model.set_adapter("default")
    for parameter in second:
        parameter.requires_grad_(True)


@contextmanager
def use_value_adapter(model: PeftModel) -> Iterator[None]:
    """Compute with the adapter `VALUE` in place of the policy's."""
    with keep_trainable(model):
        model.set_adapter(VALUE)
        try:
            yield
        finally:
            model.set_adapter("default")


@contextmanager
def keep_trainable(model: PeftModel) -> Iterator[None]:
    """Restore `requires_grad` afterwards: PEFT freezes an adapter when it switches to another."""
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Load a saved adapter, frozen, onto the model that it was trained on.

    BadInput if its file is damaged, or if its tensors and the model's layers do not correspond.
    """
    stored = read_header(folder / ADAPTER_WEIGHTS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(folder))
        # PEFT only warns of what is missing, so it reads the file again for the list.
        found = adapted.load_adapter(str(folder), "default")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # it raises whatever a foreign adapter leads it to
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[min(1, len(lines) - 1)][:LONGEST] if lines else one_line(error)
        raise BadInput(
            f"the adapter does not fit its base model: {reason}", where=str(folder)
        ) from error
    if not adapted.active_peft_config.is_prompt_learning:  # else PEFT is strict itself
        check_adapter_keys(found.missing_keys, found.unexpected_keys, len(stored), str(folder))
    check_finite(adapter_parameters(adapted).items(), str(folder))
    return adapted


def untie_adapted(model: PeftModel) -> list[str]:
    """Copy weights that layers share and adapters change, and return their names.

    Merged into one shared weight, the adapters of all its layers would add up.
    """
    places = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    untied = []
    module: Any
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        layer: Any = module.get_base_layer()
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and places[id(weight)] > 1:
            layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            untied.append(name.removeprefix("base_model.model."))
    return untied


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model without those of its adapters, of whatever kind.

    Names are those that they have in the model without adapters.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    added: set[int] = set()
    for module in base.modules():
        if isinstance(module, BaseTunerLayer):
            own = {id(p) for p in module.get_base_layer().parameters()}
            added |= {id(p) for p in module.parameters()} - own
    return {
        name.replace(".base_layer.", "."): p
        for name, p in base.named_parameters()
        if id(p) not in added
    }


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of all adapters on a model, by their names in it."""
    base = {id(p) for p in base_parameters(model).values()}
    return {name: p for name, p in model.named_parameters() if id(p) not in base}


def four_bit_config(device: torch.device) -> BitsAndBytesConfig:
    """Return the settings of NF4 with double quantisation, computed in bfloat16 (CPU: float32).

    BadInput if 4-bit weights do not run on the device.
    """
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


def keep_storage_layout(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    It does so in place, on the first forward pass in evaluation mode: the scales are rounded, so
    the model would change in the middle of a run, and layers whose input is no multiple of 64 fail.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that 4-bit weights are multiplied in."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16

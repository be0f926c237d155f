"""Load a policy without its weights: tensors with a shape, a dtype and no values.

Passes over such a policy compute nothing, in the memory of a few small objects, but allocate and
free what passes over the real one do. `alignzoo.memory` measures that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn import Params4bit
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

from alignzoo.errors import BadInput
from alignzoo.policy import adapters
from alignzoo.policy.attention import ATTENTION_NAME
from alignzoo.policy.flops import numel
from alignzoo.policy.heads import ValueHead
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.policy.load import (
    ModelSpec,
    adapt,
    default_device,
    freeze,
    make_score_head,
    open_source,
    remove_dropout,
    split_adapters,
    state_size,
)
from alignzoo.policy.locate import locate_model, quiet_libraries, translate_errors
from alignzoo.policy.model import ModelParts
from alignzoo.policy.policy import Policy
from alignzoo.policy.rotary import rotary_limit
from alignzoo.policy.scoring import RowScorer, Scorer, SharedScorer
from alignzoo.policy.virtual import virtual_of, weight_of

CPU = torch.device("cpu")


class Weightless(NamedTuple):
    """A policy without values, the copy that is its reference, if any, and their fake mode."""

    policy: Policy
    frozen: PreTrainedModel | None
    mode: FakeTensorMode

    @property
    def tensors(self) -> list[Tensor]:
        """Return all weights and buffers, with the scales of 4-bit weights."""
        policy = self.policy
        modules = [policy.model, policy.score_head, policy.value_head, self.frozen]
        found = [
            tensor
            for module in modules
            if module is not None
            for tensor in (*module.parameters(), *module.buffers())
        ]
        return found + [scale for tensor in found for scale in scales_of(tensor)]


def load_weightless(spec: ModelSpec, half: torch.dtype | None) -> Weightless:
    """Build the policy of a specification from its configuration; its tokenizer is the real one.

    Of `spec.device` only the type matters; the tensors say that they are on a CPU. `half` is the
    dtype of products under autocast; None: float32. Raise `BadInput` if there is no such model, or
    its layers cannot be known without its weights.
    """
    source = locate_model(spec.model)
    stack = split_adapters(source, spec.adapter)
    with quiet_libraries():
        tokenizer, weights = open_source(source, spec, CPU)
        if weights.quantised:
            raise BadInput(
                "the stored weights are quantised, and their size is known only when they are read",
                where=spec.model,
                hint="estimate with the model that was not quantised, and --qlora",
            )
        base = _build(weights.config, spec, half)
        remove_dropout(base)
        scorer = _assume_scorer(base)
        parameter_count = sum(numel(p) for p in base.parameters())
        frozen = freeze(base, spec)
        model, flops = adapt(base, scorer, source, stack, spec)
        if half is not None:
            adapters.keep_input_precision(model)
        if virtual_of(model).count:
            weight_of(model).requires_grad_(True)
        if spec.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
    parts = ModelParts(
        model=model,
        tokenizer=tokenizer,
        name=spec.model,
        device=CPU,
        scorer=scorer,
        score_head=make_score_head(source, base, spec),
        value_head=ValueHead(state_size(base), CPU) if spec.values is not None else None,
        half=half,
        flops=flops,
        parameter_count=parameter_count,
        fingerprint="",
        rotary_limit=rotary_limit(base),
    )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    embeddings: Any = base.get_input_embeddings()
    dtype = embeddings.weight.dtype
    for module in (model, parts.score_head, parts.value_head):
        if module is not None:
            _drop_values(module, mode, dtype)
    policy = Policy(parts, frozen=frozen)  # it builds a scorer on the copy, which checks weights
    if frozen is not None:
        _drop_values(frozen, mode, dtype)
    return Weightless(policy, frozen, mode)


def _build(config: Any, spec: ModelSpec, half: torch.dtype | None) -> PreTrainedModel:
    """Build the network of a configuration without storage, with linear layers for 4 bits."""
    device = spec.device or default_device()
    four_bit = spec.four_bit or ADAPTERS[spec.adapter or "none"].four_bit
    dtype = half if half is not None and not spec.trains_base else torch.float32
    if four_bit:
        dtype = adapters.compute_dtype(device)
    with translate_errors(spec.model), torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=spec.trust_remote_code
        )
        if four_bit:
            settings = adapters.four_bit_config(device)
            quantiser = AutoHfQuantizer.from_config(settings)
            quantiser.preprocess_model(base, device_map={"": CPU})
            vars(base)["is_loaded_in_4bit"] = True  # by which PEFT chooses its layers
    return adapters.keep_storage_layout(base)


def _assume_scorer(model: PreTrainedModel) -> Scorer:
    """Return the scorer that `pick_scorer` would try first, which needs weights to compare."""
    plain = model.config._attn_implementation
    kinds: list[type[Scorer]] = [SharedScorer, RowScorer]
    if getattr(model, "_is_stateful", False):  # recurrent layers
        kinds = [RowScorer]
    for kind in kinds:
        try:
            model.set_attn_implementation(ATTENTION_NAME if kind.shared else plain)
            return kind(model)
        except (NotImplementedError, ValueError):
            continue
    raise BadInput(
        f"the memory of a {model.config.model_type} model cannot be estimated: its head is not a "
        "plain linear layer",
        hint="a short run measures it: alignzoo run ALGO --steps 2, then run.json has its peak",
    )


def _drop_values(model: nn.Module, mode: FakeTensorMode, dtype: torch.dtype) -> None:
    """Replace every tensor of a model by one of the same shape and dtype without values.

    Weights that are loaded in `dtype` and then quantised become packed ones.
    """
    # The table of bitsandbytes must not become a part of the fake mode.
    quantize_4bit(torch.zeros(64, 64), quant_type="nf4", compress_statistics=True)
    known: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in known:  # tied weights stay tied
                known[id(parameter)] = parameter, _without_values(parameter, mode, dtype)
            module._parameters[name] = known[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _empty(buffer, mode)


def _without_values(
    parameter: nn.Parameter, mode: FakeTensorMode, dtype: torch.dtype
) -> nn.Parameter:
    if not isinstance(parameter, Params4bit):
        return nn.Parameter(_empty(parameter, mode), requires_grad=parameter.requires_grad)
    with mode:
        data, state = quantize_4bit(
            torch.empty(parameter.shape, dtype=dtype),
            quant_type=parameter.quant_type,
            compress_statistics=parameter.compress_statistics,
        )
    packed = nn.Parameter(data, requires_grad=False)
    vars(packed)["quant_state"] = state
    return packed


def _empty(x: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)


def scales_of(weight: Tensor) -> list[Tensor]:
    """Return the constants by which a 4-bit weight is restored; none for any other tensor."""
    state = getattr(weight, "quant_state", None)
    found: list[Tensor] = []
    while state is not None:
        found += [x for x in (state.absmax, state.offset) if isinstance(x, Tensor)]
        state = state.state2
    return found

"""Load a policy: from a specification to a model in memory, ready to train or to be queried."""

from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from alignzoo.errors import LONGEST, BadInput
from alignzoo.policy import adapters
from alignzoo.policy.accounting import check_finite
from alignzoo.policy.decoder import NOTES, check_gradient, pick_decoder
from alignzoo.policy.flops import FlopsProfile, numel, profile, with_adapter
from alignzoo.policy.heads import ScoreHead, ValueHead, is_classifier
from alignzoo.policy.kept_bases import load_kept
from alignzoo.policy.kinds import ADAPTERS, AdapterSettings
from alignzoo.policy.locate import (
    ADAPTER_WEIGHTS,
    Adapter,
    ModelSource,
    locate_model,
    quiet_libraries,
    reach_hub,
    translate_errors,
)
from alignzoo.policy.model import ModelParts
from alignzoo.policy.policy import Policy
from alignzoo.policy.probe import check_noise, check_virtual, pick_scorer
from alignzoo.policy.rotary import forget_lengths, rotary_limit
from alignzoo.policy.scoring import Scorer
from alignzoo.policy.stopping import read_stop_ids
from alignzoo.policy.virtual import check_prefix, initialize_virtual, virtual_of, weight_of
from alignzoo.policy.weight_files import WEIGHTS, fingerprint_of_files, weight_files
from alignzoo.policy.weights import Weights

FINGERPRINT_SAMPLES = 256  # values of each weight
JITTER = ("jitter_noise", "input_jitter_noise")  # of routers, in training alone


@dataclass(frozen=True)
class ModelSpec:
    """A model to load, and how.

    `model` is zoo-tiny, a hub name, a folder, or an earlier run. With an `adapter` it is ready to
    train ("none": all weights are), and its reference is the model as an earlier run left it. With
    None it is left as it is, nothing trainable; the adapter of an earlier run then stays separate,
    so that its base is available too. Virtual tokens of an earlier run can only be trained further
    by an adapter of their own kind.

    `random_init` draws new weights. `four_bit` is for a model that is not trained ("qlora" loads
    its base in 4 bits anyway), and `full_precision` loads the base of a run that was trained on 4
    bits as it is stored. `reference` matters for the adapter "none", which needs a second copy of
    the weights for it. `score_head` adds one, that of an earlier run if it has one; a model
    that is left as it is keeps its own. `values` adds a value head, on the backbone that is
    trained ("shared") or on that with a second adapter of the same kind ("own"). `device` defaults
    to the accelerator. The other fields are options of the recipe.
    """

    model: str
    adapter: str | None = None
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    virtual_tokens: int = 20
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    random_init: bool = False
    four_bit: bool = False
    full_precision: bool = False
    reference: bool = False
    score_head: bool = False
    values: Literal["shared", "own"] | None = None
    seed: int = 0
    trust_remote_code: bool = False
    device: torch.device | None = None

    @property
    def trains_base(self) -> bool:
        """True if all weights are trained."""
        return self.adapter == "none"

    @property
    def adapter_settings(self) -> AdapterSettings:
        """The settings of a new adapter."""
        return AdapterSettings(
            self.lora_rank, self.lora_alpha, self.lora_dropout, self.virtual_tokens, self.seed
        )


def load_policy(spec: ModelSpec | str, **options: Any) -> Policy:
    """Load the model of a specification; a string is the model of one with all defaults.

    BadInput if there is no such model, or it cannot be used as specified. Passing fields of
    `ModelSpec` as keyword arguments is deprecated.
    """
    spec = _spec_of(spec, options)
    device = spec.device or default_device()
    half = torch.bfloat16 if _uses_bf16(spec.precision, device) else None
    source = locate_model(spec.model)
    if spec.full_precision:
        source = source.in_full_precision()
    stack = split_adapters(source, spec.adapter)
    with quiet_libraries():
        tokenizer, weights = open_source(source, spec, device)
        base = load_base(weights, stack, spec, half)
        trained_on = None if spec.random_init else check_bases(source)
        check_finite(base.named_parameters(), spec.model)
        check_vocabulary(tokenizer, base, source.tokenizer)
        with torch.autocast(device.type, torch.bfloat16, enabled=half is not None):
            forget_lengths(base)
            scorer = pick_scorer(base)
            remove_dropout(base)  # again: BigBird replaces its attention in the first pass
            if spec.adapter is not None:
                check_noise(base)
    parameter_count = sum(numel(p) for p in base.parameters())
    fingerprint = fingerprint_of(base)
    frozen = freeze(base, spec)
    with quiet_libraries():
        model, flops = adapt(base, scorer, source, stack, spec)
        if half is not None:
            adapters.keep_input_precision(model)
        with torch.autocast(device.type, torch.bfloat16, enabled=half is not None):
            prepare_virtual(model, scorer, stack, spec)
        if spec.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
    parts = ModelParts(
        model=model,
        tokenizer=tokenizer,
        name=spec.model,
        device=device,
        scorer=scorer,
        score_head=make_score_head(source, base, spec),
        value_head=ValueHead(state_size(base), device) if spec.values is not None else None,
        half=half,
        flops=flops,
        parameter_count=parameter_count,
        fingerprint=fingerprint,
        trained_on=trained_on,
        notes=tuple(weights.notes),
        rotary_limit=rotary_limit(base),
    )
    policy = Policy(parts, frozen=frozen, start=adapter_start(model, spec.adapter, stack.before))
    if policy.score_head is None:
        set_decoder(policy)
    if not scorer.shared:  # a plain transformer gives a gradient
        check_gradient(policy)
    return policy


def freeze(base: PreTrainedModel, spec: ModelSpec) -> PreTrainedModel | None:
    """Freeze the weights unless they are trained; return a frozen copy if one is the reference."""
    for parameter in base.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(spec.trains_base)
    if not (spec.trains_base and spec.reference):
        return None
    return copy.deepcopy(base).requires_grad_(False).eval()


def set_decoder(policy: Policy) -> None:
    """Pick the way of decoding that is right for a policy, and note it if it is slow."""
    with policy.evaluating():
        kind = pick_decoder(policy)
    policy.decoder = kind
    if (note := NOTES[kind]) is not None:
        policy.notes.append(note)


def _spec_of(spec: ModelSpec | str, options: dict[str, Any]) -> ModelSpec:
    if isinstance(spec, ModelSpec):
        if options:
            raise TypeError(f"set {', '.join(options)} in the ModelSpec")
        return spec
    if options:
        warnings.warn(
            "pass load_policy a ModelSpec instead of keyword arguments",
            DeprecationWarning,
            stacklevel=3,
        )
    if "scratch" in options:
        options["random_init"] = options.pop("scratch")
    return ModelSpec(spec, **options)


class AdapterStack(NamedTuple):
    """The adapters of a source by what becomes of them.

    Some are `merged` into the weights, one may stay `separate`, and `before` are the virtual tokens
    of the model before training.
    """

    merged: list[Adapter]
    separate: Adapter | None
    before: Adapter | None


def check_bases(source: ModelSource) -> str | None:
    """Return the fingerprint of the files that the model was read from; None if unknown.

    BadInput if an adapter was trained on other weights than those that are under it now.
    """
    folder = source.folder
    if folder is None:
        return None
    fingerprint = fingerprint_of_files(weight_files(folder))
    for adapter in source.adapters:
        if adapter.trained_on not in (None, fingerprint):
            raise BadInput(
                "the weights under this adapter have changed since it was trained",
                where=str(adapter.path),
                hint=f"restore them ({source.base}), or train the adapter again",
            )
        own = fingerprint_of_files([adapter.path / ADAPTER_WEIGHTS])
        fingerprint = hashlib.sha256(f"{fingerprint} {own}".encode()).hexdigest()
    return fingerprint


def check_vocabulary(tokenizer: Any, model: PreTrainedModel, where: str) -> None:
    """Raise BadInput if tokens that every conversation has are beyond the embeddings.

    Other tokens of a tokenizer may be: of images, say, in the text-only model of a family.
    """
    rows = model.get_input_embeddings().num_embeddings
    beyond = {text: i for text, i in tokenizer.get_vocab().items() if i >= rows}
    needed = {tokenizer.bos_token, tokenizer.eos_token}
    template = str(tokenizer.chat_template or "")
    used = sorted(text for text in beyond if text in needed or text in template)
    if used:
        raise BadInput(
            f"the tokenizer has ids up to {max(beyond.values()):,}, the model embeddings for "
            f"{rows:,}: {', '.join(map(repr, used[:3]))} have none",
            where=where,
            hint="grow them and save the model: model.resize_token_embeddings(len(tokenizer))",
        )


def split_adapters(source: ModelSource, adapter: str | None) -> AdapterStack:
    """Decide what becomes of a source's adapters, for a model that gets `adapter`.

    BadInput if virtual tokens would have to be merged.
    """
    merged: list[Adapter] = list(source.adapters)
    virtual: list[Adapter] = []
    while merged and merged[-1].virtual:
        virtual.insert(0, merged.pop())
    other_kind = adapter is not None and virtual and virtual[-1].virtual != adapter
    for wrong in [a for a in merged if a.virtual] + virtual[-1:] * bool(other_kind):
        raise BadInput(
            "virtual tokens cannot be merged into weights, only trained further",
            where=str(wrong.path),
            hint=f"use --adapter {wrong.virtual}, or the model that they were trained on",
        )
    if virtual:
        earlier = virtual if adapter is not None else virtual[:-1]
        return AdapterStack(merged, virtual[-1], earlier[-1] if earlier else None)
    separate = merged.pop() if merged and adapter is None else None
    return AdapterStack(merged, separate, None)


def open_source(source: ModelSource, spec: ModelSpec, device: torch.device) -> tuple[Any, Weights]:
    """Load the tokenizer and the configuration, and return the first with the source of weights."""
    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    if source.on_hub and not reach_hub(source.base):
        options["local_files_only"] = True
    with translate_errors(source.base):
        config = AutoConfig.from_pretrained(source.base, **options)
    named = getattr(config, "transformers_weights", None)
    if named not in (None, WEIGHTS):
        raise BadInput(
            f"config.json names another file of weights, {str(named)[:LONGEST]!r}",
            where=source.base,
            hint=f"only {WEIGHTS} and the files of its index are looked at: remove the key "
            "transformers_weights",
        )
    if config.is_encoder_decoder:
        raise BadInput(
            f"an encoder-decoder model ({config.model_type}); alignzoo trains decoder-only ones",
            where=source.base,
        )
    if is_classifier(config.architectures) and spec.adapter is not None and not spec.score_head:
        raise BadInput(
            f"the weights are of a {config.architectures[0]}, which has no language-model head",
            where=source.base,
            hint="it can give the reward: --reward FOLDER",
        )
    with translate_errors(source.tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, **options)
        tokenizer.decode(tokenizer.encode("a word"))  # some values are used only then
    tokenizer.generation_stop_ids = read_stop_ids(source, len(tokenizer), options)
    return tokenizer, Weights(source, config, device, spec.seed, options)


def load_base(
    weights: Weights, stack: AdapterStack, spec: ModelSpec, half: torch.dtype | None
) -> PreTrainedModel:
    """Load the base model without dropout, with the merged adapters in its weights."""
    if weights.quantised and (spec.trains_base or stack.merged or spec.random_init):
        raise BadInput(
            "the weights are quantised, and can only be trained through an adapter",
            where=weights.source.base,
            hint="use --adapter lora, or the model that was not quantised",
        )
    four_bit = spec.four_bit
    if stack.separate is not None:
        four_bit |= stack.separate.four_bit
    elif spec.adapter is not None:
        four_bit |= ADAPTERS[spec.adapter].four_bit
    # What is trained stays in float32; autocast rounds it for the products.
    dtype = half if half is not None and not spec.trains_base else torch.float32

    def load() -> PreTrainedModel:
        return weights.load(None if four_bit else dtype, stack.merged, spec.random_init)

    if four_bit or weights.quantised or spec.random_init or stack.merged:
        base = load()
    else:
        base = load_kept((*weights.identity, dtype), weights.device, load, weights.notes)
    if spec.trains_base:
        weights.check_tied()
    if four_bit:
        weights.notes.append(four_bit_note(base))
    # A policy and its reference must differ by the training alone: the base draws nothing.
    remove_dropout(base)
    return base


def four_bit_note(model: PreTrainedModel) -> str:
    """Return a note on the share of the weights that are in 4 bits."""
    total = sum(numel(p) for p in model.parameters())
    small = sum(numel(p) for p in model.parameters() if hasattr(p, "quant_state"))
    note = f"{small / total:.0%} of the weights are in 4 bits"
    if 2 * small >= total:
        return note
    experts = any(p.ndim == 3 for p in model.parameters())
    reason = "experts are not quantised" if experts else "embeddings are not quantised"
    return f"only {note}: {reason}, so --qlora saves little memory"


def adapt(
    base: PreTrainedModel,
    scorer: Scorer,
    source: ModelSource,
    stack: AdapterStack,
    spec: ModelSpec,
) -> tuple[Any, FlopsProfile]:
    """Put the saved adapter or new ones on the base, and measure what a pass costs with them."""
    flops = profile(base, trains_base=spec.trains_base)
    if spec.adapter == "prefix":
        check_prefix(base, scorer.shared)
    if stack.separate:
        model = adapters.load_adapter(base, stack.separate.path)
        return model, with_adapter(flops, model)
    if spec.adapter in (None, "none"):
        return base, flops
    model = adapters.add_adapter(base, spec.adapter, spec.adapter_settings)
    flops = with_adapter(flops, model)
    if spec.values == "own":
        adapters.add_adapter(model, spec.adapter, spec.adapter_settings)
    # Plain PEFT looks for the base here; alignzoo finds it through run.json.
    where = Path(spec.model).expanduser()
    name = str(where.resolve()) if where.is_dir() else source.base
    model.peft_config["default"].base_model_name_or_path = name
    return model, flops


def prepare_virtual(model: Any, scorer: Scorer, stack: AdapterStack, spec: ModelSpec) -> None:
    """Initialise the model's virtual tokens, if any are new, and check that they work."""
    virtual = virtual_of(model)
    if not virtual.count:
        return
    weight_of(model).requires_grad_(spec.adapter is not None)
    if not stack.separate:
        initialize_virtual(model, spec.seed)
    check_virtual(model, scorer, virtual)


def make_score_head(
    source: ModelSource, base: PreTrainedModel, spec: ModelSpec
) -> ScoreHead | None:
    """Return the score head of an earlier run, or a new one; None if the model needs none."""
    if not spec.score_head and (spec.adapter is not None or source.score_head is None):
        return None
    head = ScoreHead(state_size(base), spec.seed, base.device)
    head.requires_grad_(spec.adapter is not None)
    if source.score_head is not None:
        head.load(source.score_head)
    return head


def adapter_start(
    model: nn.Module, adapter: str | None, before: Adapter | None
) -> dict[str, Tensor] | None:
    """Return the adapter's weights in the model before training; see `Policy`."""
    if adapter is None and before is not None:
        (weights,) = load_file(before.path / "adapter_model.safetensors").values()
        (name,) = (n for n, _ in model.named_parameters() if n.startswith("prompt_encoder."))
        return {name: weights.to(next(model.parameters()).device)}
    if adapter in (None, "none") or ADAPTERS[adapter].off_when_b_is_zero:
        return None
    # No setting of new virtual tokens makes a model that is the one without them.
    if before is None and virtual_of(model).count > 0:
        return None
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def default_device() -> torch.device:
    """Return the accelerator, or the CPU if there is none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


def state_size(model: PreTrainedModel) -> int:
    """Return the size of the last hidden states, which can differ from that of the layers (OPT)."""
    head = model.get_output_embeddings()
    return getattr(head, "in_features", model.config.get_text_config().hidden_size)


def _uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether to compute in bfloat16; BadInput if that is asked of a card without it."""
    on_card = device.type == "cuda"
    has_it = on_card and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and on_card and not has_it:
        raise BadInput(
            "option --precision: this card has no bf16", hint="use --precision fp32, or auto"
        )
    return has_it if precision == "auto" else precision == "bf16"


def remove_dropout(model: nn.Module) -> None:
    """Turn off what makes training random: dropout, in layers and as numbers, and jitter."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or name in JITTER):
                setattr(module, name, 0.0)


@torch.no_grad()
def fingerprint_of(model: PreTrainedModel) -> str:
    """Return sha256 over names, shapes and evenly spaced values of all weights, as in memory.

    A sample of each weight tells trained models apart at no cost, since training moves nearly all
    values; it does not prove that two files are equal bit for bit.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().flatten()
        step = max(flat.numel() // FINGERPRINT_SAMPLES, 1)
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(flat[::step][:FINGERPRINT_SAMPLES].double().cpu().numpy().tobytes())
    return digest.hexdigest()

"""From the options of a run to a policy in memory."""

from __future__ import annotations

import copy
import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from alignzoo.errors import BadInput
from alignzoo.policy import adapters
from alignzoo.policy.flops import numel, profile, with_adapter
from alignzoo.policy.heads import ScoreHead, ValueHead
from alignzoo.policy.locate import Adapter, Source, find, loading, quiet, reachable
from alignzoo.policy.policy import Policy
from alignzoo.policy.probe import check_virtual, choose
from alignzoo.policy.virtual import begin, check_prefix, virtual_of, weight_of
from alignzoo.policy.weights import Weights

SELF_EVIDENT = ("lora", "qlora", "rslora")  # adapters that do nothing wherever lora_B is zero
SAMPLES = 256  # values of each weight that go into the fingerprint


def load_policy(
    model: str,
    *,
    adapter: str | None = None,
    lora_rank: int = 16,
    lora_alpha: float = 32.0,
    lora_dropout: float = 0.0,
    virtual_tokens: int = 20,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    gradient_checkpointing: bool = False,
    scratch: bool = False,
    four_bit: bool = False,
    reference: bool = False,
    score_head: bool = False,
    values: Literal["shared", "own"] | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    device: torch.device | None = None,
) -> Policy:
    """The model that `model` names: zoo-tiny, a hub name, a folder, or an earlier run.

    With an `adapter` it is ready to be trained, and an earlier run's result is its reference.
    Without one it is as it was left, nothing to be trained: the adapter of a run stays apart, so
    that its base can be asked too. Virtual tokens of an earlier run are trained on, and only by an
    adapter of their kind. `reference` matters for "none" alone, which needs a second
    copy of the weights for it. `four_bit` is for a model that is only asked; what "qlora" trains is
    in 4 bits anyway. `score_head` puts one on the trunk: the one of an earlier run that
    has one, or a new one. What is left as it was keeps its own. `values` puts a value head on the
    trunk, or on that with a second adapter of the same kind. The other options are those of the
    recipe.
    """
    device = device or default_device()
    half = torch.bfloat16 if _bf16(precision, device) else None
    source = find(model)
    stack = _stack(source, adapter)
    with quiet():
        tokenizer, weights = _opened(source, seed, device, trust_remote_code)
        four_bit |= stack.apart.four_bit if stack.apart else adapter == "qlora"
        dtype = half if half is not None and adapter != "none" else torch.float32
        if weights.quantised and (adapter == "none" or stack.merged or scratch):
            raise BadInput(
                "the weights are quantised, and can only be trained through an adapter",
                where=source.base,
                hint="use --adapter lora, or the model that was not quantised",
            )
        base = weights.get(None if four_bit else dtype, stack.merged, scratch)
        # A policy and its reference must differ by the training alone: the base has no dropout.
        _remove_dropout(base)
        with torch.autocast(device.type, torch.bfloat16, enabled=half is not None):
            scorer = choose(base)
    for parameter in base.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(adapter == "none")
    flops = profile(base, trains_base=adapter == "none")
    count = sum(numel(p) for p in base.parameters())
    fingerprint = _fingerprint(base)
    frozen = None
    if adapter == "none" and reference:
        frozen = copy.deepcopy(base).requires_grad_(False).eval()
    trained: Any = base
    with quiet():
        if adapter == "prefix":
            check_prefix(base, scorer.shared)
        if stack.apart:
            trained = adapters.put_on(base, stack.apart.path)
            flops = with_adapter(flops, trained)
        elif adapter not in (None, "none"):
            add = partial(
                adapters.add_adapter,
                kind=adapter,
                rank=lora_rank,
                alpha=lora_alpha,
                dropout=lora_dropout,
                virtual_tokens=virtual_tokens,
                seed=seed,
            )
            trained = add(base)
            flops = with_adapter(flops, trained)
            if values == "own":
                add(trained)
            # Where plain `peft` looks for the base; ours is found through run.json.
            where = Path(model).expanduser()
            name = str(where.resolve()) if where.is_dir() else source.base
            trained.peft_config["default"].base_model_name_or_path = name
        virtual = virtual_of(trained)
        if virtual.count:
            weight_of(trained).requires_grad_(adapter is not None)
            if not stack.apart:
                begin(trained, seed)
            with torch.autocast(device.type, torch.bfloat16, enabled=half is not None):
                check_virtual(trained, scorer, virtual)
        if gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(
        model=trained,
        tokenizer=tokenizer,
        name=model,
        device=device,
        scorer=scorer,
        frozen=frozen,
        start=_start(trained, adapter, stack.before),
        score_head=_score_head(source, base, score_head, adapter, seed),
        value_head=ValueHead(width_of_states(base), device) if values is not None else None,
        half=half,
        flops=flops,
        parameter_count=count,
        fingerprint=fingerprint,
    )


def _opened(
    source: Source, seed: int, device: torch.device, trust_remote_code: bool
) -> tuple[Any, Weights]:
    """The tokenizer, and where the weights are to be had."""
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source.on_hub and not reachable(source.base):
        options["local_files_only"] = True
    config = _config(source, options)
    with loading(source.tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, **options)
    return tokenizer, Weights(source, config, device, seed, options)


def _score_head(
    source: Source, base: PreTrainedModel, wanted: bool, adapter: str | None, seed: int
) -> ScoreHead | None:
    """The one of an earlier run, or a new one; None where none is wanted or was left."""
    if not wanted and (adapter is not None or source.score_head is None):
        return None
    head = ScoreHead(width_of_states(base), seed, base.device)
    head.requires_grad_(adapter is not None)
    if source.score_head is not None:
        head.load(source.score_head)
    return head


class Stack(NamedTuple):
    """Of the adapters that a source names, those that are added into the weights, the one that
    stays apart, and the virtual tokens of the model before training."""

    merged: list[Adapter]
    apart: Adapter | None
    before: Adapter | None


def _stack(source: Source, adapter: str | None) -> Stack:
    merged: list[Adapter] = list(source.adapters)
    virtual: list[Adapter] = []
    while merged and merged[-1].virtual:
        virtual.insert(0, merged.pop())
    foreign = adapter is not None and virtual and virtual[-1].virtual != adapter
    for wrong in [a for a in merged if a.virtual] + virtual[-1:] * bool(foreign):
        raise BadInput(
            "virtual tokens cannot be added into weights, only trained on",
            where=str(wrong.path),
            hint=f"use --adapter {wrong.virtual}, or the model that they were trained on",
        )
    if virtual:
        earlier = virtual if adapter is not None else virtual[:-1]
        return Stack(merged, virtual[-1], earlier[-1] if earlier else None)
    apart = merged.pop() if merged and adapter is None else None
    return Stack(merged, apart, None)


def _start(
    model: nn.Module, adapter: str | None, before: Adapter | None
) -> dict[str, Tensor] | None:
    """What the adapter's weights are in the model before training; see `Policy`."""
    if adapter is None and before is not None:
        (weights,) = load_file(before.path / "adapter_model.safetensors").values()
        (name,) = (n for n, _ in model.named_parameters() if n.startswith("prompt_encoder."))
        return {name: weights.to(next(model.parameters()).device)}
    # New virtual tokens are at no time as if they were not there.
    new = before is None and virtual_of(model).count > 0
    if new or adapter in (None, "none", *SELF_EVIDENT):
        return None
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def default_device() -> torch.device:
    """The accelerator, if there is one."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


def width_of_states(model: PreTrainedModel) -> int:
    """The size of the last hidden states, which is not everywhere that of the layers (OPT)."""
    head = model.get_output_embeddings()
    return getattr(head, "in_features", model.config.get_text_config().hidden_size)


def _bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


def _config(source: Source, options: dict[str, Any]) -> Any:
    with loading(source.base):
        config = AutoConfig.from_pretrained(source.base, **options)
    if config.is_encoder_decoder:
        raise BadInput(
            f"an encoder-decoder model ({config.model_type}); alignzoo trains decoder-only ones",
            where=source.base,
        )
    return config


def _remove_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "hidden_dropout", "dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@torch.no_grad()
def _fingerprint(model: PreTrainedModel) -> str:
    """sha256 over names, shapes and evenly spaced values of all weights, as they are in memory.

    A sample of each weight tells trained models apart at no cost, since training moves nearly all
    values; it is no proof that two files are equal bit for bit.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().flatten()
        step = max(flat.numel() // SAMPLES, 1)
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(flat[::step][:SAMPLES].double().cpu().numpy().tobytes())
    return digest.hexdigest()

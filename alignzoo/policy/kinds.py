"""The kinds of adapter that `--adapter` names: one row each, with everything that tells them apart.

Adding a kind takes a row here and its name in `Recipe.adapter`. All kinds begin as the model itself
(exactly, except for virtual tokens), are the model again when they are switched off, and need
nothing of the training loop but an optimizer. So PiSSA and OLoRA, which change the base weights,
and AdaLoRA, which prunes between steps, are not among them.

This module imports neither torch nor PEFT, because the recipe and `--help` read the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.errors import BadInput

if TYPE_CHECKING:  # heavy, and only named in annotations
    from peft import PeftConfig

# The kernels of these models read the weight of `out_proj` directly, past an adapter on it, so PEFT
# refuses to put one there.
RECURRENT = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
# Classes of linear layers whose input or output is not that of nn.Linear: a router gives a tuple,
# the groups of one layer get different inputs (Llama 4, Phi-3.5-MoE, DeepSeek-V4).
NOT_PLAIN = ("Router", "GroupedLinear")
VERA_RANK = 256  # of its frozen projections; PEFT's and the paper's
INSTEAD = "use --adapter lora"

LORA_OPTIONS = frozenset({"lora_rank", "lora_alpha", "lora_dropout"})
VIRTUAL_OPTIONS = frozenset({"virtual_tokens"})


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of a new adapter; each kind uses those that apply to it."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    virtual_tokens: int = 20
    seed: int = 0


Build = Callable[[Any, AdapterSettings], "PeftConfig"]


@dataclass(frozen=True)
class AdapterKind:
    """One value of `--adapter`.

    `description` says what is trained, with a place for the number of parameters. `build` makes
    PEFT's configuration for a model (None: no adapter, all weights are trained). `options` are the
    options of the recipe that apply, and `rate` is the default learning rate relative to LoRA's.
    `off_when_b_is_zero`: the adapter does nothing whenever its `lora_B` is zero. `virtual_type`
    is PEFT's type of virtual tokens; None for adapters in linear layers. `four_bit`: the base is in
    4 bits.
    """

    name: str
    description: str
    build: Build | None
    options: frozenset[str] = frozenset()
    rate: float = 1.0
    off_when_b_is_zero: bool = False
    virtual_type: str | None = None
    four_bit: bool = False

    @property
    def virtual(self) -> bool:
        """True for tokens before the prompt, False for adapters in linear layers."""
        return self.virtual_type is not None


def _layers(model: Any) -> dict[str, Any]:
    """Return the arguments of PEFT that put an adapter in every linear layer but the head."""
    from torch import nn

    excluded = ["out_proj"] * (model.config.model_type in RECURRENT)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(
            part in type(module).__name__ for part in NOT_PLAIN
        ):
            excluded.append(name)
    return {
        "task_type": "CAUSAL_LM",
        "target_modules": "all-linear",
        "exclude_modules": excluded or None,
    }


def _lora(**options: Any) -> Build:
    def build(model: Any, settings: AdapterSettings) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(
            **_layers(model),
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float works
            lora_dropout=settings.dropout,
            **options,
        )

    return build


def _loha(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import LoHaConfig

    return LoHaConfig(**_layers(model), r=settings.rank, alpha=settings.alpha)  # type: ignore[arg-type]


def _lokr(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import LoKrConfig

    return LoKrConfig(**_layers(model), r=settings.rank, alpha=settings.alpha)  # type: ignore[arg-type]


def _vera(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import VeraConfig

    if model.config.model_type in RECURRENT:
        raise BadInput("--adapter vera does not fit a recurrent model", hint=INSTEAD)
    layers = _layers(model)
    del layers["exclude_modules"]
    return VeraConfig(**layers, r=VERA_RANK, projection_prng_key=settings.seed)


def _oft(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import OFTConfig

    return OFTConfig(**_layers(model))


def _ia3(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import IA3Config

    return IA3Config(task_type="CAUSAL_LM")  # in the layers its authors chose, which PEFT knows


def _prompt(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=settings.virtual_tokens,
        token_dim=model.get_input_embeddings().embedding_dim,
        num_attention_heads=1,  # required, though nothing depends on it
    )


def _prefix(model: Any, settings: AdapterSettings) -> PeftConfig:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.virtual_tokens)


_NO_DROPOUT = LORA_OPTIONS - {"lora_dropout"}
_ROWS = (
    AdapterKind("lora", "a LoRA adapter of {:,}", _lora(), LORA_OPTIONS, off_when_b_is_zero=True),
    AdapterKind(
        "qlora",
        "a LoRA adapter of {:,} on a 4-bit base",
        _lora(),
        LORA_OPTIONS,
        off_when_b_is_zero=True,
        four_bit=True,
    ),
    AdapterKind("dora", "a DoRA adapter of {:,}", _lora(use_dora=True), LORA_OPTIONS),
    AdapterKind(
        "rslora",
        "a rank-stabilised LoRA adapter of {:,}",
        _lora(use_rslora=True),
        LORA_OPTIONS,
        rate=0.25,
        off_when_b_is_zero=True,
    ),
    AdapterKind("loha", "a LoHa adapter of {:,}", _loha, _NO_DROPOUT, rate=5.0),
    AdapterKind("lokr", "a LoKr adapter of {:,}", _lokr, _NO_DROPOUT, rate=10.0),
    AdapterKind("vera", "a VeRA adapter of {:,}", _vera, rate=30.0),
    AdapterKind("oft", "an OFT adapter of {:,}", _oft),
    AdapterKind("ia3", "an IA3 adapter of {:,}", _ia3, rate=30.0),
    AdapterKind(
        "prompt",
        "a soft prompt of {:,}",
        _prompt,
        VIRTUAL_OPTIONS,
        rate=10.0,
        virtual_type="PROMPT_TUNING",
    ),
    AdapterKind(
        "prefix",
        "a prefix of {:,}",
        _prefix,
        VIRTUAL_OPTIONS,
        rate=10.0,
        virtual_type="PREFIX_TUNING",
    ),
    AdapterKind("none", "all of them", None),
)
ADAPTERS = {kind.name: kind for kind in _ROWS}
ADAPTER_OPTIONS = frozenset().union(*(kind.options for kind in _ROWS))

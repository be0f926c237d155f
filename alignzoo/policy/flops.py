"""How many floating-point operations a pass takes: arithmetic on sizes, nothing measured.

    forward = 2 * (trunk + adapter) * tokens  +  4 * width * layers * attended  +  2 * head * scored

A multiply-add counts as 2. `trunk` are the weights a token is multiplied with (of experts only
the share that is active), `width` the query width of a layer (heads * head size; scores and their
sum over values each take 2 * width per pair that attends), `head` = vocabulary * hidden size.

An update costs 3 forwards when everything is trained (forward, gradients of activations, gradients
of weights) and 2 when the base is frozen under a LoRA adapter, whose own work is left out: a per
cent or two of a model thousands wide, though an eighth of a square layer at width 256 and rank 16.
That of DoRA, OFT and IA3 is left out too. `adapter` are the weights of those that are not small:
LoHa and LoKr multiply with a matrix as large as the layer's, which has a gradient of its own, and
VeRA with frozen ones of rank 256. Virtual tokens are counted as the tokens that they are.
What gradient checkpointing or the head computes a second time is not counted either, so that a
budget buys the same update whatever the settings for memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class FlopsProfile:
    """The sizes that decide what a model costs."""

    trunk: float
    head: float
    width: int
    layers: int
    trains_base: bool
    adapter: float = 0.0
    trains_adapter: bool = False

    def forward(self, tokens: int, attended: float, scored: int) -> float:
        """One pass without gradient; also what generating with a cache takes."""
        linear = 2.0 * ((self.trunk + self.adapter) * tokens + self.head * scored)
        return linear + 4.0 * self.width * self.layers * attended

    def update(self, tokens: int, attended: float, scored: int) -> float:
        """Forward and backward."""
        own = 2.0 * self.adapter * tokens if self.trains_adapter else 0.0
        return (3.0 if self.trains_base else 2.0) * self.forward(tokens, attended, scored) + own


def profile(model: PreTrainedModel, trains_base: bool) -> FlopsProfile:
    """The sizes of a causal language model, before an adapter is put on it."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(head.weight)} if head is not None else set()
    heads = getattr(config, "num_attention_heads", 0) or 0
    size = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    return FlopsProfile(
        trunk=sum(
            numel(p) * _active(name, config)
            for name, p in model.named_parameters()
            if id(p) not in tables and (p.ndim > 1 or hasattr(p, "quant_state"))
        ),
        head=float(numel(head.weight)) if head is not None else 0.0,
        width=heads * size,
        layers=config.num_hidden_layers,
        trains_base=trains_base,
    )


def with_adapter(flops: FlopsProfile, model: nn.Module) -> FlopsProfile:
    """The same with the adapter that is on the model by now."""
    dense = frozen = 0
    module: Any
    for module in model.modules():
        if hasattr(module, "hada_w1_a") or hasattr(module, "lokr_w1"):
            dense += numel(module.get_base_layer().weight)
        elif hasattr(module, "vera_lambda_d"):
            ranks = sum(weight.numel() for weight in module.vera_lambda_d.values())
            frozen += ranks * (module.in_features + module.out_features)
    return replace(flops, adapter=float(dense + frozen), trains_adapter=dense > 0)


def numel(parameter: Any) -> int:
    """Elements of a weight, also of one that is stored in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return state.shape.numel() if state is not None else parameter.numel()


def _active(name: str, config: Any) -> float:
    """The share of this weight that a token meets: all of it but for experts."""
    if ".experts." not in name:
        return 1.0
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((v for n in names if (v := getattr(config, n, None))), None)
    return getattr(config, "num_experts_per_tok", experts) / experts if experts else 1.0

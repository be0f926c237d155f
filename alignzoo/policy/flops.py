"""Count the floating-point operations of a pass: arithmetic on sizes, nothing measured.

    forward = 2 * (backbone + adapter) * tokens + 4 * width * layers * attended + 2 * head * scored

A multiply-add counts as 2. `backbone` is the number of weights that a token is multiplied with (of
experts only the active fraction), `width` the query width of a layer (heads * head size; scores and
their sum over values each take 2 * width per pair that attends), `head` = vocabulary * hidden size.

An update costs 3 forwards when everything is trained (forward, gradients of activations, gradients
of weights) and 2 when the base is frozen under a LoRA adapter, whose own work is left out: one or
two per cent of a model thousands wide, but an eighth of a square layer at width 256 and rank 16.
The work of DoRA, OFT and IA3 is left out too. `adapter` counts the weights of those that are not
small: LoHa and LoKr multiply with a matrix as large as the layer's, which has a gradient of its
own, and VeRA with frozen ones of rank 256. Virtual tokens count as ordinary tokens. Recomputation,
by gradient checkpointing or in the head, is not counted either, so a budget buys the same number of
updates whatever the memory settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class FlopsProfile:
    """The sizes that determine the cost of a pass through a model."""

    backbone: float
    head: float
    width: int
    layers: int
    trains_base: bool
    adapter: float = 0.0
    trains_adapter: bool = False

    def forward(self, tokens: int, attended: float, scored: int) -> float:
        """Count a pass without gradient; generation with a cache takes as much."""
        linear = 2.0 * ((self.backbone + self.adapter) * tokens + self.head * scored)
        return linear + 4.0 * self.width * self.layers * attended

    def update(self, tokens: int, attended: float, scored: int) -> float:
        """Count a forward and a backward pass."""
        own = 2.0 * self.adapter * tokens if self.trains_adapter else 0.0
        return (3.0 if self.trains_base else 2.0) * self.forward(tokens, attended, scored) + own


def profile(model: PreTrainedModel, trains_base: bool) -> FlopsProfile:
    """Measure the sizes of a causal language model, before it gets an adapter."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(head.weight)} if head is not None else set()
    heads = getattr(config, "num_attention_heads", 0) or 0
    size = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    return FlopsProfile(
        backbone=sum(
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
    """Add the sizes of the adapter that the model has now."""
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
    """Count the elements of a weight, also if it is stored in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return state.shape.numel() if state is not None else parameter.numel()


def _active(name: str, config: Any) -> float:
    """Return the fraction of this weight that a token is multiplied with: below 1 for experts."""
    if ".experts." not in name:
        return 1.0
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((v for n in names if (v := getattr(config, n, None))), None)
    return getattr(config, "num_experts_per_tok", experts) / experts if experts else 1.0

"""Count the floating-point operations of a pass: arithmetic on sizes, nothing measured.

    forward = 2 * (backbone * tokens + adapter) + 4 * width * layers * attended + 2 * head * scored
    adapter = a * tokens + b

A multiply-add counts as 2. `backbone` is the number of weights that a token is multiplied with (of
experts only the active fraction), `width` the query width of a layer (heads * head size; scores and
their sum over values each take 2 * width per pair that attends), `head` = vocabulary * hidden size.

Work is counted if it is useful. Attention counts the pairs of a query and a key that attend, not
those that a mask removes, although some kernels compute both. Recomputation, by gradient
checkpointing or in the head, is not counted, so a budget buys the same number of updates whatever
the memory settings. Elementwise work is not counted.

An update costs 3 forwards when everything is trained (forward, gradients of activations, gradients
of weights) and 2 for a base that is frozen under an adapter. (The first layer's queries, keys and
values need no gradient of their input then; it is counted all the same: 3% of an update in four
layers, 0.4% in thirty.) The adapter's own products are in `AdapterWork`, by kind; `b` is what DoRA,
LoHa, LoKr and OFT compute once per pass, however many tokens it has, to make the matrix that tokens
are multiplied with.

Generation counts as if it had a cache: each prompt once, each drawn token but the last once, the
head once for each drawn token (for the first, once per prompt), in as many passes as were made.
Padding, and rows that have ended, are not useful. Virtual tokens count as ordinary tokens; in
generation, those of a prefix are in the cache from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

OFT_POWERS = 3  # products of blocks in the series of PEFT that makes a rotation of OFT


class Products(NamedTuple):
    """Multiply-adds of an adapter: for each token, and once per pass."""

    token: float = 0.0
    once: float = 0.0

    def plus(self, other: Products, share: float = 1.0) -> Products:
        """Add the products of another layer, of which a token passes through that `share`."""
        return Products(self.token + share * other.token, self.once + other.once)


class AdapterWork(NamedTuple):
    """The products of an adapter in a forward pass, and in a forward and a backward pass."""

    forward: Products = Products()
    update: Products = Products()


NO_ADAPTER = AdapterWork()


@dataclass(frozen=True)
class FlopsProfile:
    """The sizes that determine the cost of a pass through a model."""

    backbone: float
    head: float
    width: float
    layers: int
    trains_base: bool
    adapter: AdapterWork = NO_ADAPTER

    def forward(self, tokens: int, attended: float, scored: int, passes: int = 1) -> float:
        """Count a pass without gradient, or work that is divided into several passes."""
        own = self.adapter.forward
        return self._base(tokens, attended, scored) + 2.0 * (own.token * tokens + own.once * passes)

    def update(self, tokens: int, attended: float, scored: int) -> float:
        """Count a forward and a backward pass."""
        own = self.adapter.update
        base = (3.0 if self.trains_base else 2.0) * self._base(tokens, attended, scored)
        return base + 2.0 * (own.token * tokens + own.once)

    def _base(self, tokens: int, attended: float, scored: int) -> float:
        linear = 2.0 * (self.backbone * tokens + self.head * scored)
        return linear + 4.0 * self.width * self.layers * attended

    @property
    def without_adapter(self) -> FlopsProfile:
        """Return the sizes of the model with its adapter off."""
        return replace(self, adapter=NO_ADAPTER)


def profile(model: PreTrainedModel, trains_base: bool) -> FlopsProfile:
    """Measure the sizes of a causal language model, before it gets an adapter."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(head.weight)} if head is not None else set()
    return FlopsProfile(
        backbone=sum(
            numel(p) * _active(name, config)
            for name, p in model.named_parameters()
            if id(p) not in tables and (p.ndim > 1 or hasattr(p, "quant_state"))
        ),
        head=float(numel(head.weight)) if head is not None else 0.0,
        width=_query_width(config),
        layers=config.num_hidden_layers,
        trains_base=trains_base,
    )


def with_adapter(flops: FlopsProfile, model: Any) -> FlopsProfile:
    """Add the work of the adapter that the PEFT model has now."""
    config = model.get_base_model().config.get_text_config()
    forward, update = Products(), Products()
    for name, module in model.named_modules():
        work = adapter_work(module)
        forward = forward.plus(work.forward, _active(name, config))
        update = update.plus(work.update, _active(name, config))
    return replace(flops, adapter=AdapterWork(forward, update))


def adapter_work(layer: Any) -> AdapterWork:
    """Count the products of the adapter in one layer; none for IA3, which scales elements.

    A trained factor is in three products of an update, a frozen one in two.
    """
    if hasattr(layer, "lora_A"):
        return _lora_work(layer)
    if hasattr(layer, "vera_lambda_d"):
        ranks = sum(weight.numel() for weight in layer.vera_lambda_d.values())
        products = ranks * (layer.in_features + layer.out_features)
        return AdapterWork(Products(products), Products(2 * products))  # both matrices are frozen
    if hasattr(layer, "hada_w1_a"):
        dense = numel(layer.get_base_layer().weight)
        # Two products make the matrix. The backward pass makes both again, and has four of its own.
        once = sum(weight.shape[1] for weight in layer.hada_w1_a.values()) * dense
        return AdapterWork(Products(dense, 2 * once), Products(3 * dense, 8 * once))
    if hasattr(layer, "lokr_w1"):
        dense = numel(layer.get_base_layer().weight)
        once = _product(layer.lokr_w1_a, layer.lokr_w1_b)
        once += _product(layer.lokr_w2_a, layer.lokr_w2_b)
        return AdapterWork(Products(dense, once), Products(3 * dense, 3 * once))
    if hasattr(layer, "oft_R"):
        token = sum(r.in_features * r.block_size for r in layer.oft_R.values())
        cubes = sum(r.in_features * r.block_size**2 for r in layer.oft_R.values())
        once = OFT_POWERS * cubes
        return AdapterWork(Products(token, once), Products(3 * token, 3 * once))
    return NO_ADAPTER


def _lora_work(layer: Any) -> AdapterWork:
    """Count the products of LoRA, or of DoRA: also B @ A, for its norms, without gradient."""
    token = once = 0.0
    for name, a in layer.lora_A.items():
        own = numel(a.weight) + numel(layer.lora_B[name].weight)
        token += own
        # PEFT makes B @ A by passing the identity matrix through both.
        once += own * a.in_features if name in layer.lora_magnitude_vector else 0.0
    return AdapterWork(Products(token, once), Products(3 * token, once))


def _product(a: Any, b: Any) -> int:
    """Count the multiply-adds of `a [m, r] @ b [r, n]` for the adapters that have both."""
    return sum(weight.numel() * b[name].shape[1] for name, weight in a.items())


def _query_width(config: Any) -> float:
    """Return heads * head size of a layer; the mean where layers, or keys and values, differ."""
    own = getattr(config, "per_layer_config", None)
    layers = own if own and not isinstance(own, dict) else [config]
    widths = []
    for layer in layers:
        heads = getattr(layer, "num_attention_heads", 0) or 0
        size = getattr(layer, "head_dim", None) or layer.hidden_size // max(heads, 1)
        if getattr(layer, "qk_nope_head_dim", None):  # latent attention; head_dim is a part of keys
            size = (layer.qk_nope_head_dim + layer.qk_rope_head_dim + layer.v_head_dim) / 2
        widths.append(heads * size)
    return sum(widths) / len(widths)


def numel(parameter: Any) -> int:
    """Count the elements of a weight, also if it is stored in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return state.shape.numel() if state is not None else parameter.numel()


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
ACTIVE_EXPERTS = ("num_experts_per_tok", "moe_topk", "top_k_experts")


def _active(name: str, config: Any) -> float:
    """Return the fraction of this weight that a token is multiplied with: below 1 for experts."""
    if ".experts." not in name:
        return 1.0
    experts = next((v for n in EXPERTS if (v := getattr(config, n, None))), None)
    active = next((v for n in ACTIVE_EXPERTS if (v := getattr(config, n, None))), experts)
    return active / experts if experts else 1.0

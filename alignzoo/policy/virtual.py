"""Learnt tokens before every prompt: a soft prompt, or a prefix.

For a batch they are ordinary tokens at the front of its prompts, so that layout, positions, masks
and the ledger know nothing of them. `SoftPrompt` puts its vectors where their embeddings would be;
`Prefix` puts its keys and values where attention would see theirs. What a prefix's own places
compute is seen by no one. Both are saved by peft, and mean there what they mean here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy import attention
from alignzoo.policy.adapters import PeftModel


class Virtual:
    """No virtual tokens, which is how most models are computed, and what the others have too."""

    count: int = 0
    opening: int = 0  # how many places generation leaves for them before a prompt

    def before(self, batch: Batch) -> Batch:
        """The batch with places for them at the front of its prompts."""
        if not self.count:
            return batch
        places = batch.prompts.new_zeros(len(batch), self.count)
        return replace(
            batch,
            prompts=torch.cat([places, batch.prompts], 1),
            prompt_lengths=batch.prompt_lengths + self.count,
        )

    def seen(self, positions: Tensor) -> AbstractContextManager[None]:
        """Inside it a forward pass over tokens at those positions, `[..., L]` like their ids, has
        the virtual tokens at the first `count` of them."""
        return nullcontext()

    def fill(self, cache: DynamicCache, rows: int) -> None:
        """Put into an empty cache what is not to be computed from `opening` places."""


NO_VIRTUAL = Virtual()


class SoftPrompt(Virtual):
    """`weight [k, h]`: embeddings of tokens that are in no vocabulary."""

    def __init__(self, adapted: Any):
        self.weight = weight_of(adapted)
        self.embeddings = adapted.get_base_model().get_input_embeddings()
        self.count = self.opening = len(self.weight)

    @contextmanager
    def seen(self, positions: Tensor) -> Iterator[None]:
        where = positions < self.count
        which = positions[where]

        def put(_: Any, __: Any, embedded: Tensor) -> Tensor:
            own = self.weight.index_select(0, which).to(embedded.dtype)
            return embedded.masked_scatter(where[..., None], own)

        hook = self.embeddings.register_forward_hook(put)
        try:
            yield
        finally:
            hook.remove()


class Prefix(Virtual):
    """`weight [k, 2 * layers * width]`: keys and values of every layer, as peft lays them out."""

    def __init__(self, adapted: Any):
        self.weight = weight_of(adapted)
        self.count = len(self.weight)
        config = adapted.peft_config["default"]
        self.layers, self.heads = config.num_layers, config.num_attention_heads

    def keys_and_values(self) -> Tensor:
        """`[layers, 2, k, heads, d]`."""
        shaped = self.weight.view(self.count, self.layers, 2, self.heads, -1)
        return shaped.permute(1, 2, 0, 3, 4)

    def seen(self, positions: Tensor) -> AbstractContextManager[None]:
        return attention.prefixed(self.keys_and_values())

    def fill(self, cache: DynamicCache, rows: int) -> None:
        for layer, pair in enumerate(self.keys_and_values()):
            key, value = pair.transpose(1, 2)[:, None].expand(-1, rows, -1, -1, -1)
            cache.update(key, value, layer)


def weight_of(adapted: Any) -> Tensor:
    return adapted.prompt_encoder["default"].embedding.weight


def virtual_of(model: Any) -> Virtual:
    """The virtual tokens of a model with an adapter of any kind, or without one."""
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return NO_VIRTUAL
    kinds = {"PROMPT_TUNING": SoftPrompt, "PREFIX_TUNING": Prefix}
    name = model.active_peft_config.peft_type.value
    if name not in kinds:
        raise BadInput(f"virtual tokens of a kind that alignzoo does not know: {name}")
    return kinds[name](model)


def check_prefix(model: PreTrainedModel, shared: bool) -> None:
    """`BadInput` for a model whose attention is not ours, or does not see all that lies behind."""
    config = model.config.get_text_config()
    windows = any("full" not in kind for kind in getattr(config, "layer_types", None) or [])
    windows = windows or getattr(config, "sliding_window", None) is not None
    if not shared or windows:
        reason = "has sliding windows" if shared else "has attention of its own"
        raise BadInput(
            f"--adapter prefix does not fit a {config.model_type} model, which {reason}",
            hint="use --adapter prompt",
        )


@torch.no_grad()
def begin(adapted: Any, seed: int) -> None:
    """Let new virtual tokens begin as noise with the spread of the embeddings: a soft prompt as
    that itself, a prefix as its keys and values.

    Words would say something. Measured on zoo-tiny, 20 tokens of noise changed the log-prob of a
    token by 0.04 to 0.09 nats, 20 words drawn from the vocabulary by 0.07 to 0.7.
    """
    model, weight = adapted.get_base_model(), weight_of(adapted)
    table = model.get_input_embeddings()
    width = table.embedding_dim
    noise = torch.randn(len(weight), width, generator=torch.Generator().manual_seed(seed))
    vectors = noise.to(weight.device) * table.weight.float().std(0)
    if virtual_of(adapted).opening:
        weight.copy_(vectors)
        return
    cache = DynamicCache(config=model.config)
    dtype = table.weight.dtype
    model(inputs_embeds=vectors[None].to(dtype), past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    pairs = [torch.stack([layer.keys[0], layer.values[0]]) for layer in layers]
    # From [layers, 2, heads, k, d] to what `Prefix.keys_and_values` reads.
    weight.copy_(torch.stack(pairs).permute(3, 0, 1, 2, 4).flatten(1))

"""Learned tokens before every prompt: a soft prompt, or a prefix.

For a batch they are ordinary tokens at the front of its prompts, so layout, positions, masks and
the ledger need no special case. `SoftPrompt` puts its vectors in the place of their embeddings;
`Prefix` puts its keys and values in the place of theirs in attention, and nothing reads what its
placeholders compute. Both are saved by PEFT and mean there what they mean here.
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
from alignzoo.policy.adapters import PeftModel
from alignzoo.policy.attention import use_prefix


class Virtual:
    """No virtual tokens, the case of most models, and the interface of the others.

    `count` is the number of virtual tokens, `placeholders` how many token ids generation puts
    before a prompt for them.
    """

    count: int = 0
    placeholders: int = 0

    def prepend_to(self, batch: Batch) -> Batch:
        """Return the batch with `count` placeholders at the front of its prompts."""
        if not self.count:
            return batch
        ids = batch.prompts.new_zeros(len(batch), self.count)  # (B, k)
        return replace(
            batch,
            prompts=torch.cat([ids, batch.prompts], 1),
            prompt_lengths=batch.prompt_lengths + self.count,
        )

    def inject(self, positions: Tensor) -> AbstractContextManager[None]:
        """Replace the first `count` positions in forward passes over tokens `[..., L]`.

        `positions [..., L]` are those of the tokens.
        """
        return nullcontext()

    def fill(self, cache: DynamicCache, rows: int) -> None:
        """Put into an empty cache what is not computed from placeholders, for so many rows."""


NO_VIRTUAL = Virtual()


class SoftPrompt(Virtual):
    """Embeddings of tokens that are in no vocabulary: `weight [k, h]`."""

    def __init__(self, adapted: Any):
        self.weight = weight_of(adapted)
        self.embeddings = adapted.get_base_model().get_input_embeddings()
        self.count = self.placeholders = len(self.weight)

    @contextmanager
    def inject(self, positions: Tensor) -> Iterator[None]:
        where = positions < self.count  # (..., L)
        which = positions[where]

        def replace_embeddings(_: Any, __: Any, embedded: Tensor) -> Tensor:
            own = self.weight.index_select(0, which).to(embedded.dtype)
            return embedded.masked_scatter(where[..., None], own)  # (..., L, h)

        hook = self.embeddings.register_forward_hook(replace_embeddings)
        try:
            yield
        finally:
            hook.remove()


class Prefix(Virtual):
    """Keys and values of every layer, in PEFT's layout: `weight [k, 2 * layers * width]`."""

    def __init__(self, adapted: Any):
        self.weight = weight_of(adapted)
        self.count = len(self.weight)
        config = adapted.peft_config["default"]
        self.layers, self.heads = config.num_layers, config.num_attention_heads

    def keys_and_values(self) -> Tensor:
        """Return them as `[layers, 2, k, heads, d]`."""
        shaped = self.weight.view(self.count, self.layers, 2, self.heads, -1)
        return shaped.permute(1, 2, 0, 3, 4)

    def inject(self, positions: Tensor) -> AbstractContextManager[None]:
        return use_prefix(self.keys_and_values())

    def fill(self, cache: DynamicCache, rows: int) -> None:
        for layer, pair in enumerate(self.keys_and_values()):  # (2, k, heads, d)
            # (rows, heads, k, d) each
            key, value = pair.transpose(1, 2)[:, None].expand(-1, rows, -1, -1, -1)
            cache.update(key, value, layer)


def weight_of(adapted: Any) -> Tensor:
    """Return the trained weight of PEFT's virtual tokens, `[k, ...]`."""
    return adapted.prompt_encoder["default"].embedding.weight


def virtual_of(model: Any) -> Virtual:
    """Return the virtual tokens of a model, or `NO_VIRTUAL` if it has none."""
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return NO_VIRTUAL
    classes = {"PROMPT_TUNING": SoftPrompt, "PREFIX_TUNING": Prefix}
    name = model.active_peft_config.peft_type.value
    if name not in classes:
        raise BadInput(f"unsupported kind of virtual tokens: {name}")
    return classes[name](model)


def check_prefix(model: PreTrainedModel, shared: bool) -> None:
    """Raise BadInput unless the model uses our attention and sees all previous tokens."""
    config = model.config.get_text_config()
    windows = any("full" not in kind for kind in getattr(config, "layer_types", None) or [])
    windows = windows or getattr(config, "sliding_window", None) is not None
    if not shared or windows:
        reason = "has sliding windows" if shared else "has custom attention"
        raise BadInput(
            f"--adapter prefix does not fit a {config.model_type} model, which {reason}",
            hint="use --adapter prompt",
        )


@torch.no_grad()
def initialize_virtual(adapted: Any, seed: int) -> None:
    """Set new virtual tokens to noise with the standard deviation of the embeddings.

    A soft prompt is that noise, a prefix its keys and values. Words would carry a meaning: measured
    on zoo-tiny, 20 tokens of noise changed the log-prob of a token by 0.04 to 0.09 nats, 20 words
    drawn from the vocabulary by 0.07 to 0.7.
    """
    model, weight = adapted.get_base_model(), weight_of(adapted)
    table = model.get_input_embeddings()
    width = table.embedding_dim
    noise = torch.randn(len(weight), width, generator=torch.Generator().manual_seed(seed))
    vectors = noise.to(weight.device) * table.weight.float().std(0)  # (k, h)
    if virtual_of(adapted).placeholders:
        weight.copy_(vectors)
        return
    cache = DynamicCache(config=model.config)
    dtype = table.weight.dtype
    model(inputs_embeds=vectors[None].to(dtype), past_key_values=cache, use_cache=True)
    layers: list[Any] = cache.layers
    pairs = [torch.stack([layer.keys[0], layer.values[0]]) for layer in layers]
    # From [layers, 2, heads, k, d] to what `Prefix.keys_and_values` reads.
    weight.copy_(torch.stack(pairs).permute(3, 0, 1, 2, 4).flatten(1))

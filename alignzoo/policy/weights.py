"""Load the weights of a base model: stored or random, in 4 bits, with adapters merged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from alignzoo.policy import adapters
from alignzoo.policy.locate import Adapter, ModelSource, check_weights, translate_errors


@dataclass(frozen=True)
class Weights:
    """The source of a model's weights; `options` go to every call of transformers."""

    source: ModelSource
    config: Any
    device: torch.device
    seed: int
    options: dict[str, Any]

    @property
    def quantised(self) -> bool:
        """True if the stored weights are quantised; they can only be loaded as they are."""
        return getattr(self.config, "quantization_config", None) is not None

    def load(
        self, dtype: torch.dtype | None, merged: Sequence[Adapter], random_init: bool
    ) -> PreTrainedModel:
        """Load the model in `dtype` (None: in 4 bits), with adapters merged into its weights.

        With `random_init` its weights are random instead of the stored ones.
        """
        if self.quantised:
            model = self._stored(device_map={"": self.device})
        elif dtype is None:
            model = self._four_bit(merged, random_init)
        else:
            model = self._plain(dtype, merged, random_init)
        return adapters.keep_storage_layout(model)

    def _plain(
        self, dtype: torch.dtype, merged: Sequence[Adapter], random_init: bool
    ) -> PreTrainedModel:
        if random_init:
            model = self._random(dtype)
        elif merged:
            model = self._merged(merged)
            for parameter in model.parameters():  # not the buffers: rotary tables stay float32
                parameter.data = parameter.data.to(dtype)
        else:
            model = self._stored(dtype=dtype)
        return model.to(self.device)  # type: ignore[arg-type]

    def _four_bit(self, merged: Sequence[Adapter], random_init: bool) -> PreTrainedModel:
        adapters.four_bit_config(self.device)  # fails before anything large is read
        if random_init:
            return self._quantise(self._random(torch.float32))
        if merged:
            return self._quantise(self._merged(merged))
        return self._stored(
            quantization_config=adapters.four_bit_config(self.device),
            dtype=adapters.compute_dtype(self.device),
            device_map={"": self.device},
        )

    def _random(self, dtype: torch.dtype) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return AutoModelForCausalLM.from_config(
                self.config, dtype=dtype, trust_remote_code=self.options["trust_remote_code"]
            )

    def _merged(self, merged: Sequence[Adapter]) -> PreTrainedModel:
        """Merge in float32; an adapter trained on 4 bits is merged into the dequantised weights."""
        if merged[0].four_bit:
            model = self._four_bit([], False).dequantize(torch.float32)
        else:
            model = self._stored(dtype=torch.float32)
        for k, adapter in enumerate(merged):
            if k > 0 and adapter.four_bit:
                model = self._quantise(model).dequantize(torch.float32)
            model = adapters.load_adapter(model, adapter.path).merge_and_unload()
        return model

    def _quantise(self, model: PreTrainedModel) -> PreTrainedModel:
        """Quantise by way of a folder: bitsandbytes does so only while loading."""
        with tempfile.TemporaryDirectory(prefix="alignzoo-") as folder:
            model.save_pretrained(folder)
            return AutoModelForCausalLM.from_pretrained(
                folder,
                quantization_config=adapters.four_bit_config(self.device),
                dtype=adapters.compute_dtype(self.device),
                device_map={"": self.device},
                use_safetensors=True,
                **self.options,
            )

    def _stored(self, **options: Any) -> PreTrainedModel:
        check_weights(self.source)
        with translate_errors(self.source.base):
            return AutoModelForCausalLM.from_pretrained(
                self.source.base, use_safetensors=True, **self.options, **options
            )

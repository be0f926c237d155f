"""The weights of a base model: from disk, the hub or chance, in 4 bits, with adapters merged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from alignzoo.policy import adapters
from alignzoo.policy.locate import Adapter, Source, check_weights, loading


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from; `options` go to every call of transformers."""

    source: Source
    config: Any
    device: torch.device
    seed: int
    options: dict[str, Any]

    @property
    def quantised(self) -> bool:
        """Whether the stored weights are quantised; they can only be loaded as they are."""
        return getattr(self.config, "quantization_config", None) is not None

    def get(
        self, dtype: torch.dtype | None, merged: Sequence[Adapter], scratch: bool
    ) -> PreTrainedModel:
        """The model in `dtype` (None: in 4 bits), with those adapters added into its weights."""
        if self.quantised:
            model = self._stored(device_map={"": self.device})
        elif dtype is None:
            model = self._four_bit(merged, scratch)
        else:
            model = self._plain(dtype, merged, scratch)
        return adapters.keep_layout(model)

    def _plain(
        self, dtype: torch.dtype, merged: Sequence[Adapter], scratch: bool
    ) -> PreTrainedModel:
        if scratch:
            model = self._random(dtype)
        elif merged:
            model = self._merged(merged)
            for parameter in model.parameters():  # not the buffers: rotary tables stay float32
                parameter.data = parameter.data.to(dtype)
        else:
            model = self._stored(dtype=dtype)
        return model.to(self.device)  # type: ignore[arg-type]

    def _four_bit(self, merged: Sequence[Adapter], scratch: bool) -> PreTrainedModel:
        adapters.four_bit(self.device)  # fails before anything large is read
        if scratch:
            return self._quantise(self._random(torch.float32))
        if merged:
            return self._quantise(self._merged(merged))
        return self._stored(
            quantization_config=adapters.four_bit(self.device),
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
        """In float32. An adapter trained on 4 bits is added to what those 4 bits say."""
        if merged[0].four_bit:
            model = self._four_bit([], False).dequantize(torch.float32)
        else:
            model = self._stored(dtype=torch.float32)
        for k, adapter in enumerate(merged):
            if k > 0 and adapter.four_bit:
                model = self._quantise(model).dequantize(torch.float32)
            model = adapters.put_on(model, adapter.path).merge_and_unload()
        return model

    def _quantise(self, model: PreTrainedModel) -> PreTrainedModel:
        """By way of a folder: bitsandbytes quantises only while loading."""
        with tempfile.TemporaryDirectory(prefix="alignzoo-") as folder:
            model.save_pretrained(folder)
            return AutoModelForCausalLM.from_pretrained(
                folder,
                quantization_config=adapters.four_bit(self.device),
                dtype=adapters.compute_dtype(self.device),
                device_map={"": self.device},
                use_safetensors=True,
                **self.options,
            )

    def _stored(self, **options: Any) -> PreTrainedModel:
        check_weights(self.source)
        with loading(self.source.base):
            return AutoModelForCausalLM.from_pretrained(
                self.source.base, use_safetensors=True, **self.options, **options
            )

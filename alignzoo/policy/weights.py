"""Load the weights of a base model: stored or random, in 4 bits, with adapters merged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import cached_file

from alignzoo.errors import BadInput
from alignzoo.policy import adapters
from alignzoo.policy.accounting import check_accounted
from alignzoo.policy.heads import is_classifier
from alignzoo.policy.locate import Adapter, ModelSource, translate_errors
from alignzoo.policy.probe import keeps_logprobs, logprobs_to_keep
from alignzoo.policy.weight_files import INDEX, shard_names, stored_tensors, weight_files


@dataclass(frozen=True)
class Weights:
    """The source of a model's weights; `options` go to every call of transformers.

    Loading adds to `notes` what the user should know, and to `untied` the weights that layers
    shared until an adapter of their own was merged into each.
    """

    source: ModelSource
    config: Any
    device: torch.device
    seed: int
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)

    def check_tied(self) -> None:
        """Raise BadInput if the weights cannot be saved: a shared one was untied."""
        if self.untied:
            raise BadInput(
                f"layers share weights ({self.untied[0]}) that have adapters of their own",
                where=self.source.base,
                hint="use --adapter lora, which keeps them apart",
            )

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return what tells these weights from others in this process: the name, and the files."""
        folder = self.source.folder
        files = [] if folder is None else weight_files(folder)
        stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        return self.source.base, tuple(stats)

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
        with translate_errors(self.source.base), torch.random.fork_rng(devices=[]):
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
            model = self._merge(adapters.load_adapter(model, adapter.path), adapter)
        return model

    def _merge(self, adapted: adapters.PeftModel, adapter: Adapter) -> PreTrainedModel:
        """Merge an adapter; BadInput if the merged model is another one than the adapted."""
        expected, allowed = logprobs_to_keep(adapted)
        self.untied.extend(adapters.untie_adapted(adapted))
        merged = adapted.merge_and_unload()
        if not keeps_logprobs(merged, expected, allowed):
            raise BadInput(
                f"merging this adapter changes what a {self.config.model_type} model computes",
                where=str(adapter.path),
                hint="use the model that it was trained on",
            )
        return merged

    def _quantise(self, model: PreTrainedModel) -> PreTrainedModel:
        """Quantise by way of a folder: bitsandbytes does so only while loading."""
        self.check_tied()
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

    @property
    def classifier(self) -> bool:
        """True if the stored weights have a head for labels in place of a language model's."""
        return is_classifier(getattr(self.config, "architectures", None))

    def _stored(self, **options: Any) -> PreTrainedModel:
        """Load the stored weights; BadInput unless they are the model's, all of them."""
        base = self.source.base
        if self.source.on_hub:
            self._check_index()
        else:
            stored = stored_tensors(weight_files(Path(base)))
            layers = getattr(self.config.get_text_config(), "num_hidden_layers", None)
            if isinstance(layers, int) and layers > len(stored):  # building them could take hours
                raise BadInput(
                    f"{layers:,} layers by config.json, {len(stored):,} tensors in the file",
                    where=base,
                    hint="use the config.json that the weights were saved with",
                )
        # The head of a classifier's language model is missing and drawn, though nothing uses it.
        with translate_errors(base), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                base,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report
                **self.options,
                **options,
            )
        model, report = loaded
        head = ["lm_head.weight"] * self.classifier
        note = check_accounted(model, report, base, head)
        if note is not None and not self.classifier:
            self.notes.append(note)
        return model

    def _check_index(self) -> None:
        """Raise BadInput if the hub's index names other files than safetensors."""
        with translate_errors(self.source.base):
            index = cached_file(
                self.source.base,
                INDEX,
                local_files_only=self.options.get("local_files_only", False),
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        if index is not None:
            shard_names(Path(index))

"""Load a model with the adapters of all its runs merged into its weights, in full precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from alignzoo.errors import BadInput
from alignzoo.policy.accounting import check_finite
from alignzoo.policy.load import ModelSpec, check_bases, check_vocabulary, open_source
from alignzoo.policy.locate import locate_model, quiet_libraries


class MergedModel(NamedTuple):
    """A plain model of transformers in float32, its tokenizer, and the dtype of its stored base."""

    model: PreTrainedModel
    tokenizer: Any
    stored_dtype: torch.dtype


def load_merged(name: str, *, trust_remote_code: bool = False) -> MergedModel:
    """Load a model, a folder or a run on the CPU, with its adapters merged in float32.

    They are merged into the base as it is stored, also those that were trained on it in 4 bits:
    what this rounding did to the base is not part of the result. Raise `BadInput` if one of them
    cannot be merged, or the stored base is itself quantised.
    """
    source = locate_model(name).in_full_precision()
    for adapter in source.adapters:
        if adapter.virtual:
            raise BadInput(
                "virtual tokens cannot be merged into weights",
                where=str(adapter.path),
                hint="keep them as an adapter",
            )
    spec = ModelSpec(name, trust_remote_code=trust_remote_code)
    with quiet_libraries():
        tokenizer, weights = open_source(source, spec, torch.device("cpu"))
        if weights.quantised:
            raise BadInput(
                "the weights are quantised: an adapter cannot be merged into them",
                where=source.base,
                hint="keep it as an adapter, or train on the model that was not quantised",
            )
        model = weights.load(torch.float32, source.adapters, random_init=False)
    weights.check_tied()
    check_bases(source)
    check_finite(model.named_parameters(), name)
    check_vocabulary(tokenizer, model, source.tokenizer)
    return MergedModel(model.eval(), tokenizer, weights.config.dtype or torch.float32)

"""Rotary embeddings whose frequencies depend on the longest position of a forward pass.

With `longrope` and `dynamic` a sequence beyond the original length changes what all others of the
same pass compute, and cached keys are of other frequencies than new ones. So such sequences are
computed one at a time, and generated without a cache.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.policy.forward import ForwardOptions, Outputs
from alignzoo.policy.layout import HiddenState, input_lengths
from alignzoo.policy.scoring import Scorer


def rotary_limit(model: PreTrainedModel) -> int | None:
    """Return the most tokens of a sequence for which frequencies are fixed; None: of any."""
    limits = [limit for module in model.modules() for limit in _limits(module)]
    return min(limits) if limits else None


def _limits(module: nn.Module) -> list[int]:
    kinds = getattr(module, "rope_type", None)
    config = getattr(module, "config", None)
    settings: Any = getattr(config, "rope_parameters", None)
    if not isinstance(settings, dict):
        return []
    each = [(kinds, settings)]
    if isinstance(kinds, dict):  # some families have settings for each type of layer
        each = [(kind, settings[layer_type]) for layer_type, kind in kinds.items()]
    limits: list[int] = []
    for kind, own in each:
        if kind == "longrope":
            limits.append(own["original_max_position_embeddings"])
        elif isinstance(kind, str) and "dynamic" in kind:
            limits.append(int(getattr(module, "original_max_seq_len")))  # noqa: B009
    return limits


def forget_lengths(model: PreTrainedModel) -> None:
    """Make dynamic frequencies a function of the pass alone, not of longer ones before it."""
    for module in model.modules():
        if _limits(module) and hasattr(module, "max_seq_len_cached"):
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, _: Any) -> None:
    for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
        setattr(module, name, 0)


def score_apart(
    scorer: Scorer, batch: Batch, options: ForwardOptions, limit: int | None
) -> Outputs:
    """Call a scorer, with every sequence that is longer than `limit` in a pass of its own."""
    pieces = _pieces(batch, HiddenState.PREDICTING, limit)
    if len(pieces) < 2:
        return scorer(batch, options)
    found = [scorer(batch.keep(which), options.keep(which)) for which in pieces]

    joined: dict[str, Any] = {}
    for name in (each.name for each in fields(Outputs)):
        parts = [getattr(outputs, name) for outputs in found]  # (rows of the piece, T, ...) each
        if parts[0] is not None:
            joined[name] = torch.cat(parts)[_order(pieces)]
    return Outputs(**joined)


def states_apart(
    scorer: Scorer, batch: Batch, which: HiddenState, options: ForwardOptions, limit: int | None
) -> Tensor:
    """Return the scorer's states `[n, h]`, with long sequences in passes of their own."""
    pieces = _pieces(batch, which, limit)
    if len(pieces) < 2:
        return scorer.states(batch, which, options)
    rows: list[Tensor] = []  # (t, h) of each completion
    for piece in pieces:
        states = scorer.states(batch.keep(piece), which, options)
        rows += states.split(batch.lengths[piece].tolist())
    return torch.cat([rows[i] for i in _order(pieces).tolist()])


def _pieces(batch: Batch, which: HiddenState, limit: int | None) -> list[Tensor]:
    """Return masks `[N]`: of the completions that may share a pass, then of each other one."""
    if limit is None or not len(batch.tokens):
        return []
    long = batch.prompt_lengths[batch.group] + input_lengths(batch, which) > limit  # (N,)
    alone = torch.zeros(int(long.sum()), len(long), dtype=torch.bool, device=long.device)
    alone[torch.arange(len(alone)), long.nonzero().squeeze(1)] = True
    return [*([~long] if not bool(long.all()) else []), *alone]


def _order(pieces: list[Tensor]) -> Tensor:
    """Return for each of N completions its place among the rows of all pieces, `[N]`."""
    return torch.cat([piece.nonzero().squeeze(1) for piece in pieces]).argsort()

"""From a batch to hidden states and log-probabilities, in one of three ways.

The first one that gives the model's own log-probabilities is used (`alignzoo.policy.probe`):

`SharedScorer`   prompts once per group, one packed row; head in chunks
`RowScorer`      one row per completion; head in chunks (recurrent models, custom attention)
`LogitsScorer`   one row per completion, the model's own logits (a head that we cannot reproduce)

Shapes: N completions of at most T tokens, n tokens in all of them together, rows of W cells, hidden
states of size h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy.attention import ATTENTION_NAME, use_layout
from alignzoo.policy.forward import DEFAULT_OPTIONS, ForwardOptions, Outputs, wanted_ids
from alignzoo.policy.layout import (
    HiddenState,
    Layout,
    append_completions,
    check_shapes,
    column_index,
    pack_batch,
    token_mask,
    ungroup,
)
from alignzoo.policy.lm_head import LMHead
from alignzoo.policy.sequences import Sequences

NO_LINEAR_HEAD = (
    "distributions over the vocabulary can only be compared if the head is a plain linear layer"
)


class Scorer(Protocol):
    """A way to compute log-probabilities; `note` is what the user should know about it, if any.

    `shared`: a prompt is computed once per group. `limit`: see `position_limit`.
    """

    shared: bool
    note: str | None
    limit: int | None

    def __init__(self, model: PreTrainedModel): ...

    def __call__(self, batch: Batch, options: ForwardOptions = DEFAULT_OPTIONS) -> Outputs:
        """Compute log-probs of the completions; the batch has placeholders for virtual tokens."""
        ...

    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        """Return the backbone's last hidden state for each token, `[n, h]`, in row-major order."""
        ...


class BackboneScorer(ABC):
    """Runs the backbone, then our own chunked head on the states of the scored tokens alone."""

    shared: bool = False
    note: str | None = None

    def __init__(self, model: PreTrainedModel):
        self.backbone, self.head = backbone_of(model), LMHead(model)
        self.embeddings = model.get_input_embeddings()
        self.limit = position_limit(model)

    def __call__(self, batch: Batch, options: ForwardOptions = DEFAULT_OPTIONS) -> Outputs:
        states = self.states(batch, HiddenState.PREDICTING, options)  # (n, h)
        values = options.value_head(states) if options.value_head is not None else None  # (n,)
        hidden = states if options.hidden else None
        tops = self.head.tops(states, batch, options) if options.tops else (None, None)  # (n, K)
        apart = self.head.divergence(states, batch, options) if options.divergence else None  # (n,)
        return Outputs.of(batch, *self.head(states, batch, options), values, hidden, *tops, apart)

    @abstractmethod
    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        """See `Scorer`."""


class SharedScorer(BackboneScorer):
    """Computes every prompt once; needs the attention `ATTENTION_NAME` in the model."""

    shared: bool = True

    def __init__(self, model: PreTrainedModel):
        if model.config._attn_implementation != ATTENTION_NAME:
            raise NotImplementedError("the model's attention cannot be set")
        super().__init__(model)

    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        check_positions(batch, self.limit)
        row = pack_batch(batch, which)
        with options.apply(self.embeddings, row.lengths, row.positions):
            return self.hidden(row).index_select(0, row.source)  # (n, h)

    def reads_positions(self, batch: Batch) -> bool:
        """Return False if the model ignores the positions that it is given.

        It counts the tokens of the row instead then. The numbers alone may not tell: learned
        positions can weigh little beside tokens.
        """
        row = pack_batch(batch)
        halved = replace(row, positions=row.positions // 2)
        return not torch.equal(self.hidden(row), self.hidden(halved))

    def sequences(self, row: Layout) -> Sequences | None:
        """Return the sequences to attend over; None for padded blocks."""
        return None

    def hidden(self, row: Layout) -> Tensor:
        """Return the backbone's last hidden states of the whole row, `[L, h]`."""
        with use_layout(row, self.sequences(row)):
            # With a mask of ones no model takes the jumps in `positions` for packed documents.
            out = self.backbone(
                input_ids=row.ids,
                position_ids=row.positions,
                attention_mask=torch.ones_like(row.ids),
                use_cache=False,
            )
        return out[0].squeeze(0)


class UnpaddedScorer(SharedScorer):
    """Computes attention, too, without padding if that is faster, or always or never if told so."""

    unpadded: bool | None = None

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self.width = model.config.get_text_config().hidden_size

    def sequences(self, row: Layout) -> Sequences | None:
        if self.unpadded is False:
            return None
        found = Sequences.of(row)
        if self.unpadded or row.ids.device.type != "cpu" or found.saves_time(row, self.width):
            return found
        return None


class RowScorer(BackboneScorer):
    """A right-padded row per completion. Causal models need no mask: padding comes after."""

    note: str | None = (
        "prompts are computed once per completion: this model's layers cannot share them"
    )

    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        check_positions(batch, self.limit)
        rows = completion_rows(batch, which)
        with options.apply(self.embeddings, rows.lengths, rows.positions):
            hidden = self.backbone(input_ids=rows.ids, use_cache=False)[0]  # (N, W, h)
        return hidden.flatten(0, 1).index_select(0, rows.source)  # (n, h)


class LogitsScorer:
    """The model's own logits `[N, W, V]`, for a head that we cannot reproduce."""

    shared: bool = False
    note: str | None = (
        "the model's own logits are used, which takes more memory: its head is not a plain "
        "linear layer that can be computed in chunks"
    )

    def __init__(self, model: PreTrainedModel):
        self.model, self.limit = model, position_limit(model)
        self.embeddings = model.get_input_embeddings()

    def __call__(self, batch: Batch, options: ForwardOptions = DEFAULT_OPTIONS) -> Outputs:
        if options.divergence is not None:
            raise BadInput(NO_LINEAR_HEAD)
        check_positions(batch, self.limit)
        rows = completion_rows(batch, HiddenState.PREDICTING)
        with options.apply(self.embeddings, rows.lengths, rows.positions):
            out = self.model(
                input_ids=rows.ids,
                use_cache=False,
                output_hidden_states=options.hidden or options.value_head is not None,
            )
        logits = out.logits.flatten(0, 1).index_select(0, rows.source)  # (n, V)
        logp = (logits.float() / options.temperature).log_softmax(-1)  # (n, V)
        picked = logp.gather(1, batch.tokens[token_mask(batch)][:, None]).squeeze(1)  # (n,)
        entropies = -(logp.exp() * logp).sum(-1) if options.entropy else None  # (n,)
        log_sums = (2 * logp.detach()).logsumexp(-1) if options.log_sum_p2 else None  # (n,)
        values = hidden = ids = tops = None
        if options.hidden or options.value_head is not None:
            states = out.hidden_states[-1].flatten(0, 1).index_select(0, rows.source)  # (n, h)
            hidden = states if options.hidden else None
            values = options.value_head(states) if options.value_head is not None else None  # (n,)
        if options.tops:
            ids = wanted_ids(batch, options)  # (n, K)
            ids = ids if ids is not None else logp.topk(options.top_k).indices
            tops = logp.gather(1, ids)  # (n, K)
        return Outputs.of(batch, picked, entropies, log_sums, values, hidden, tops, ids)

    def states(
        self, batch: Batch, which: HiddenState, options: ForwardOptions = DEFAULT_OPTIONS
    ) -> Tensor:
        check_positions(batch, self.limit)
        rows = completion_rows(batch, which)
        with options.apply(self.embeddings, rows.lengths, rows.positions):
            out = self.model(input_ids=rows.ids, use_cache=False, output_hidden_states=True)
        return out.hidden_states[-1].flatten(0, 1).index_select(0, rows.source)  # (n, h)


class Rows(NamedTuple):
    """Completions with their prompts in front, as right-padded rows.

    `ids`, `lengths` (of the row that a cell is in) and `positions`, all `[N, W]`; `source [n]` is
    the cell, in row-major order, whose state stands for each token of `batch.tokens`.
    """

    ids: Tensor
    lengths: Tensor
    positions: Tensor
    source: Tensor


def completion_rows(batch: Batch, states: HiddenState) -> Rows:
    """Lay a batch out as a row of prompt and completion for each completion."""
    check_shapes(batch)
    single = ungroup(batch)
    all_of_them = torch.ones_like(single.group, dtype=torch.bool)  # (N,)
    ids, lengths = append_completions(single, all_of_them, states)  # (N, W), (N,)
    row_starts = torch.arange(len(ids), device=ids.device) * ids.shape[1]  # (N,)
    own = row_starts + single.prompt_lengths  # (N,) cell of each completion's first token
    first = own - 1 if states is HiddenState.PREDICTING else own
    source = first[:, None] + column_index(batch.tokens)  # (N, T)
    return Rows(
        ids,
        lengths[:, None].expand_as(ids),
        column_index(ids).expand_as(ids),
        source[token_mask(batch)],
    )


def backbone_of(model: PreTrainedModel) -> nn.Module:
    """Return the transformer without its head."""
    for name in (model.base_model_prefix, "model"):
        backbone = getattr(model, name, None) if name else None
        if isinstance(backbone, nn.Module):
            return backbone
    raise NotImplementedError("the model does not separate its backbone from its head")


def position_limit(model: PreTrainedModel) -> int | None:
    """Return how many positions the model has a table for; None if it computes any position.

    Tables are learned (GPT-2, OPT) or computed once (GPT-J, CodeGen, CTRL, and MPT's ALiBi).
    """
    config = model.config.get_text_config()
    if config.model_type == "mpt":
        return config.max_seq_len
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    tables: list[int] = []  # their usable rows
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not model.get_input_embeddings():
            padding = getattr(module, "padding_idx", None)  # RoBERTa's positions begin behind it
            if 0 <= module.num_embeddings - limit <= 2:  # OPT keeps two cells for padding
                tables.append(module.num_embeddings - (0 if padding is None else padding + 1))
        tables += [len(t) for t in module.buffers(recurse=False) if t.ndim == 2 and len(t) == limit]
    return min(limit, *tables) if tables else None


def check_positions(batch: Batch, limit: int | None) -> None:
    """Raise BadInput, in place of an index out of range, if a row exceeds the position limit."""
    if limit is None or not len(batch.tokens):
        return
    longest = int((batch.prompt_lengths[batch.group] + batch.lengths).max())
    if longest > limit:
        raise BadInput(
            f"{longest} tokens in a prompt and its completion, more than the {limit} positions "
            "that the model has",
            hint=f"use --max-length {limit} or less",
        )

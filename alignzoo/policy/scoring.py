"""From a batch to hidden states and log-probabilities, in one of three ways.

The first one that gives the model's own log-probabilities is used (`alignzoo.policy.probe`):

`SharedScorer`   prompts once per group, one packed row; head in chunks
`RowScorer`      one row per completion; head in chunks (recurrent models, custom attention)
`LogitsScorer`   one row per completion, the model's own logits (a head that we cannot reproduce)

Shapes: N completions of at most T tokens, n tokens in all of them together, rows of W cells, hidden
states of size h.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy.attention import ATTENTION_NAME, use_layout
from alignzoo.policy.divergence import HeadInputs, chunked_divergence
from alignzoo.policy.heads import ValueHead
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
from alignzoo.policy.logprobs import LogitTransform, chunked_logprobs
from alignzoo.policy.sequences import Sequences
from alignzoo.policy.top_logprobs import chunked_top_logprobs
from alignzoo.policy.virtual import NO_VIRTUAL, Virtual

# Maps input embeddings `[..., h]` and the length of the sequence that each belongs to, `[...]`, to
# other embeddings: with noise added, say.
Perturb = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ForwardOptions:
    """Options of a forward pass: what to compute besides log-probs, and what to change in it.

    `entropy`, `log_sum_p2`, `hidden`, `top_k` or `top_ids [N, T, K]`, `divergence` and `value_head`
    fill the fields of `Outputs`. `temperature` divides the logits. `perturb` maps the input
    embeddings before the pass, and `virtual` are the virtual tokens that the batch has placeholders
    for.
    """

    entropy: bool = False
    log_sum_p2: bool = False
    temperature: float = 1.0
    hidden: bool = False
    top_k: int = 0
    top_ids: Tensor | None = None
    divergence: DivergenceFrom | None = None
    perturb: Perturb | None = None
    virtual: Virtual = NO_VIRTUAL
    value_head: ValueHead | None = None

    @contextmanager
    def apply(self, embeddings: nn.Module, lengths: Tensor, positions: Tensor) -> Iterator[None]:
        """Apply `perturb` and `virtual` to a pass over tokens `[..., L]`.

        `positions` and `lengths`, both `[..., L]`, are the position of each token and the length of
        its sequence.
        """
        assert lengths.shape == positions.shape, (lengths.shape, positions.shape)
        with (
            perturb_embeddings(embeddings, self.perturb, lengths),
            self.virtual.inject(positions),
        ):
            yield

    @property
    def tops(self) -> bool:
        """Return whether log-probs of several tokens at each position are wanted."""
        return self.top_k > 0 or self.top_ids is not None

    @property
    def head_passes(self) -> int:
        """Return how often a token goes through the LM head."""
        return 1 + self.tops + (self.divergence is not None)

    def keep(self, rows: Tensor) -> ForwardOptions:
        """Return the options for some of the N completions, those marked in `rows [N]`."""
        top_ids, other = self.top_ids, self.divergence
        return replace(
            self,
            top_ids=top_ids[rows] if top_ids is not None else None,
            divergence=replace(other, hidden=other.hidden[rows]) if other is not None else None,
        )


@dataclass(frozen=True)
class DivergenceFrom:
    """Another model's distributions of the tokens of a batch, to compute the divergence from.

    Args:
        hidden: its `Outputs.hidden` for the batch, or for one with the same completions,
            `[N, T, h]`.
        head: its LM head, `LanguageModel.lm_head`.
        beta: of `generalized_jsd`, in [0, 1].
    """

    hidden: Tensor
    head: LMHead
    beta: float


DEFAULT_OPTIONS = ForwardOptions()
NO_LINEAR_HEAD = (
    "distributions over the vocabulary can only be compared if the head is a plain linear layer"
)


@dataclass
class Outputs:
    """Per-token results of a forward pass, `[N, T]` float32, exactly 0 where there is no token.

    `logprobs` are the log-probs of the tokens. On request, for the distribution p of each token:
    its `entropy`, and without gradient `log_sum_p2`, log sum(p^2), the log-probability that two
    draws agree. With a value head, `values` are its outputs for the state before each token.

    Also on request: `hidden [N, T, h]`, the last layer's state that predicts each token, in the
    precision of the model; and `top_logprobs [N, T, K]` of the K likeliest tokens at each position,
    the likeliest first, with their `top_ids [N, T, K]`, or of the tokens that were asked for; and
    `divergence`, of p from another model's distribution of the token: see `generalized_jsd`.
    """

    logprobs: Tensor
    # None unless requested. Typed as tensors, for a caller knows what it requested.
    entropy: Tensor = None  # type: ignore[assignment]
    log_sum_p2: Tensor = None  # type: ignore[assignment]
    values: Tensor = None  # type: ignore[assignment]
    hidden: Tensor = None  # type: ignore[assignment]
    top_logprobs: Tensor = None  # type: ignore[assignment]
    top_ids: Tensor = None  # type: ignore[assignment]
    divergence: Tensor = None  # type: ignore[assignment]

    @classmethod
    def of(cls, batch: Batch, *found: Tensor | None) -> Outputs:
        """Make outputs from values per token, `[n, ...]` each, in the order of the fields."""
        return cls(*(scatter_tokens(batch, x) if x is not None else None for x in found))  # type: ignore[arg-type]

    @property
    def collision(self) -> Tensor | None:
        """Deprecated: use `log_sum_p2`."""
        warnings.warn("Outputs.collision is now log_sum_p2", DeprecationWarning, stacklevel=2)
        return self.log_sum_p2


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


class LMHead:
    """The LM head, applied in chunks to the states of the scored tokens alone."""

    def __init__(self, model: PreTrainedModel):
        layer = model.get_output_embeddings()
        if not isinstance(layer, nn.Linear) or type(layer.weight) is not nn.Parameter:
            raise NotImplementedError(f"the head is a {type(layer).__name__}")
        self.layer = layer
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = _logit_scale(config)

    def __call__(
        self, states: Tensor, batch: Batch, options: ForwardOptions
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Compute log-probs, entropy and log sum(p^2), `[n]` each, from `states [n, h]`."""
        return self.of_targets(states, batch.tokens[token_mask(batch)], options)

    def of_targets(
        self, states: Tensor, targets: Tensor, options: ForwardOptions
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Compute what a call computes, for the tokens `targets [n]`."""
        return chunked_logprobs(
            self._scaled(states),
            self.layer.weight,
            targets,
            self.layer.bias,
            options.temperature,
            self.softcap,
            options.entropy,
            options.log_sum_p2,
        )

    def tops(self, states: Tensor, batch: Batch, options: ForwardOptions) -> tuple[Tensor, Tensor]:
        """Compute log-probs of K tokens at each position and their ids, both `[n, K]`."""
        return chunked_top_logprobs(
            self._scaled(states),
            self.layer.weight,
            self.layer.bias,
            LogitTransform(options.temperature, self.softcap),
            options.top_k,
            wanted_ids(batch, options),
        )

    def divergence(self, states: Tensor, batch: Batch, options: ForwardOptions) -> Tensor:
        """Compute the divergence from another model's distribution at each token, `[n]`."""
        other = options.divergence
        assert other is not None
        theirs = other.head.inputs(other.hidden[token_mask(batch)], options.temperature)
        return chunked_divergence(self.inputs(states, options.temperature), theirs, other.beta)

    def inputs(self, states: Tensor, temperature: float) -> HeadInputs:
        """Return what the distributions at `states [n, h]` are made of."""
        transform = LogitTransform(temperature, self.softcap)
        return HeadInputs(self._scaled(states), self.layer.weight, self.layer.bias, transform)

    def _scaled(self, states: Tensor) -> Tensor:
        """Return the states in the precision of the head, times the scale of the logits."""
        weight, device = self.layer.weight, states.device.type
        half = torch.is_autocast_enabled(device)
        states = states.to(torch.get_autocast_dtype(device) if half else weight.dtype)
        return states if self.scale == 1.0 else states * self.scale

    def fits(self, model: PreTrainedModel) -> bool:
        """Return whether the model makes of its head's output what this one does.

        Given a ramp of large numbers, for a cap on logits hardly shows on the small ones that a
        model has at a few tokens.
        """
        ramp = torch.linspace(-60, 60, self.layer.out_features, device=model.device)  # (V,)
        hook = self.layer.register_forward_hook(lambda *args: ramp.to(args[2]).expand_as(args[2]))
        try:
            tokens = torch.ones(1, 2, dtype=torch.long, device=model.device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1].float()  # (V,)
        finally:
            hook.remove()
        before, after = self._cap(ramp), self._cap(ramp * self.scale)  # the scale of states, logits
        is_close = partial(torch.allclose, logits, rtol=0.02, atol=0.01)  # in half precision too
        return is_close(before) or (self.layer.bias is None and is_close(after))

    def _cap(self, logits: Tensor) -> Tensor:
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _logit_scale(config: Any) -> float:
    """Return the factor that some families put on logits (Cohere, Falcon-H1; Granite divides)."""
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier"):
        scale *= getattr(config, name, None) or 1.0
    return scale / (getattr(config, "logits_scaling", None) or 1.0)


def scatter_tokens(batch: Batch, values: Tensor) -> Tensor:
    """Scatter values of tokens, `[n, ...]`, to `[N, T, ...]` with zeros elsewhere."""
    mask = token_mask(batch)  # (N, T)
    if values.ndim == 1:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)
    return values.new_zeros(*mask.shape, *values.shape[1:]).index_put((mask,), values)


def wanted_ids(batch: Batch, options: ForwardOptions) -> Tensor | None:
    """Return the token ids whose log-probs are asked for at each token, `[n, K]`, if any are."""
    if options.top_ids is None:
        return None
    ids, shape = options.top_ids, batch.tokens.shape
    if ids.ndim != 3 or ids.shape[:2] != shape:
        raise BadInput(f"top_ids is [N, T, K] with N and T of {list(shape)}, not {list(ids.shape)}")
    return ids.to(batch.tokens.device)[token_mask(batch)]


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


@contextmanager
def perturb_embeddings(
    embeddings: nn.Module, perturb: Perturb | None, lengths: Tensor
) -> Iterator[None]:
    """Map the output of the input embeddings by `perturb`, if there is one."""
    if perturb is None:
        yield
        return
    hook = embeddings.register_forward_hook(lambda _, __, embedded: perturb(embedded, lengths))
    try:
        yield
    finally:
        hook.remove()


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

"""From a batch to hidden states and log-probabilities, in three ways of which the first that the
probe finds right is used (`alignzoo.policy.probe`):

`SharedScorer`   prompts once per group, one packed row; head in chunks
`RowScorer`      one row per completion; head in chunks (recurrent models, attention of their own)
`LogitsScorer`   one row per completion, the model's own logits (a head that we cannot reproduce)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy.attention import NAME, packed
from alignzoo.policy.heads import ValueHead
from alignzoo.policy.layout import Layout, States, join, layout, present, steps, ungroup
from alignzoo.policy.logprobs import chunked_logprobs
from alignzoo.policy.virtual import NO_VIRTUAL, Virtual

# From input embeddings `[..., h]`, and how many tokens the sequence of each has `[...]`, to other
# embeddings: noise on them, say.
Perturb = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ask:
    """What is wanted of a pass besides the log-probs, and what is to be otherwise in it.

    `entropy`, `collision`, `value_head`: see `Outputs`. `temperature` divides the logits. `perturb`
    changes the input embeddings, and `virtual` are the learnt tokens that a batch has places for.
    """

    entropy: bool = False
    collision: bool = False
    temperature: float = 1.0
    perturb: Perturb | None = None
    virtual: Virtual = NO_VIRTUAL
    value_head: ValueHead | None = None

    @contextmanager
    def put(self, embeddings: nn.Module, lengths: Tensor, positions: Tensor) -> Iterator[None]:
        """Inside it the model sees what was asked for, in tokens at those positions, in sequences
        of those lengths."""
        with perturbed(embeddings, self.perturb, lengths), self.virtual.seen(positions):
            yield


PLAIN = Ask()


@dataclass
class Outputs:
    """`logprobs [N, T]` float32, filled wherever a completion has a token, exactly 0 elsewhere.

    When asked for, of the distribution p that each token was drawn from: its `entropy [N, T]`, and
    without gradient `collision [N, T]`, log sum(p^2), how likely two draws are to agree. With a
    value head, `values [N, T]`: what it says of the state before each token, the one it was drawn
    in.
    """

    logprobs: Tensor
    entropy: Tensor | None = None
    collision: Tensor | None = None
    values: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, *found: Tensor | None) -> Outputs:
        """From values of the present tokens, `[n]` each, in the order of the fields."""
        return cls(*(spread(batch, x) if x is not None else None for x in found))  # type: ignore[arg-type]


class Scorer(Protocol):
    """`shared`: a prompt is computed once per group. `note`: what the user should know of it."""

    shared: bool
    note: str | None

    def __init__(self, model: PreTrainedModel): ...

    def __call__(self, batch: Batch, ask: Ask = PLAIN) -> Outputs:
        """Log-probabilities of the completions' tokens; the batch has places for `virtual`."""
        ...

    def states(self, batch: Batch, which: States, ask: Ask = PLAIN) -> Tensor:
        """The trunk's last hidden state for each present token, `[n, h]`, in row-major order."""
        ...


class TrunkScorer(ABC):
    """The trunk's states of the scored tokens alone, through our own head in chunks."""

    shared: bool = False
    note: str | None = None

    def __init__(self, model: PreTrainedModel):
        self.trunk, self.head = trunk_of(model), Head(model)
        self.embeddings = model.get_input_embeddings()
        self.limit = position_limit(model)

    def __call__(self, batch: Batch, ask: Ask = PLAIN) -> Outputs:
        states = self.states(batch, States.BEFORE, ask)
        values = ask.value_head(states) if ask.value_head is not None else None
        return Outputs.of(batch, *self.head(states, batch, ask), values)

    @abstractmethod
    def states(self, batch: Batch, which: States, ask: Ask = PLAIN) -> Tensor:
        """See `Scorer`."""


class SharedScorer(TrunkScorer):
    """Every prompt once; needs `attention.NAME` as the model's attention."""

    shared: bool = True

    def __init__(self, model: PreTrainedModel):
        if model.config._attn_implementation != NAME:
            raise NotImplementedError("the model's attention cannot be set")
        super().__init__(model)

    def states(self, batch: Batch, which: States, ask: Ask = PLAIN) -> Tensor:
        check_positions(batch, self.limit)
        row = layout(batch, which)
        with ask.put(self.embeddings, row.lengths, row.positions):
            return self.hidden(row).index_select(0, row.source)

    def hidden(self, row: Layout) -> Tensor:
        """The trunk's last hidden states of the whole row, `[L, h]`."""
        with packed(row):
            # With a mask of ones no model takes the jumps in `positions` for packed documents.
            out = self.trunk(
                input_ids=row.ids,
                position_ids=row.positions,
                attention_mask=torch.ones_like(row.ids),
                use_cache=False,
            )
        return out[0].squeeze(0)


class RowScorer(TrunkScorer):
    """A right-padded row per completion. Causal models need no mask: the pads come after."""

    note: str | None = (
        "prompts are computed once per completion: this model's layers do not let them be shared"
    )

    def states(self, batch: Batch, which: States, ask: Ask = PLAIN) -> Tensor:
        check_positions(batch, self.limit)
        rows, lengths, source = completion_rows(batch, which)
        with ask.put(self.embeddings, lengths, places(rows)):
            hidden = self.trunk(input_ids=rows, use_cache=False)[0]
        return hidden.flatten(0, 1).index_select(0, source)


class LogitsScorer:
    """The model's own logits `[N, W, V]`, for a head that does what we do not know."""

    shared: bool = False
    note: str | None = (
        "the model's own logits are used, which takes memory: its head does what we do not know"
    )

    def __init__(self, model: PreTrainedModel):
        self.model, self.limit = model, position_limit(model)
        self.embeddings = model.get_input_embeddings()

    def __call__(self, batch: Batch, ask: Ask = PLAIN) -> Outputs:
        check_positions(batch, self.limit)
        rows, lengths, source = completion_rows(batch, States.BEFORE)
        with ask.put(self.embeddings, lengths, places(rows)):
            out = self.model(
                input_ids=rows, use_cache=False, output_hidden_states=ask.value_head is not None
            )
        logits = out.logits.flatten(0, 1).index_select(0, source).float() / ask.temperature
        logp = logits.log_softmax(-1)
        picked = logp.gather(1, batch.tokens[present(batch)][:, None]).squeeze(1)
        entropies = -(logp.exp() * logp).sum(-1) if ask.entropy else None
        collisions = (2 * logp.detach()).logsumexp(-1) if ask.collision else None
        values = None
        if ask.value_head is not None:
            values = ask.value_head(out.hidden_states[-1].flatten(0, 1).index_select(0, source))
        return Outputs.of(batch, picked, entropies, collisions, values)

    def states(self, batch: Batch, which: States, ask: Ask = PLAIN) -> Tensor:
        check_positions(batch, self.limit)
        rows, lengths, source = completion_rows(batch, which)
        with ask.put(self.embeddings, lengths, places(rows)):
            out = self.model(input_ids=rows, use_cache=False, output_hidden_states=True)
        return out.hidden_states[-1].flatten(0, 1).index_select(0, source)


class Head:
    """The LM head applied to scored states only: from `[n, h]` to what `chunked_logprobs` gives of
    each."""

    def __init__(self, model: PreTrainedModel):
        layer = model.get_output_embeddings()
        if not isinstance(layer, nn.Linear) or type(layer.weight) is not nn.Parameter:
            raise NotImplementedError(f"the head is a {type(layer).__name__}")
        self.layer = layer
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = _logit_scale(config)

    def __call__(
        self, states: Tensor, batch: Batch, ask: Ask
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        weight, device = self.layer.weight, states.device.type
        half = torch.is_autocast_enabled(device)
        states = states.to(torch.get_autocast_dtype(device) if half else weight.dtype)
        if self.scale != 1.0:
            states = states * self.scale
        targets = batch.tokens[present(batch)]
        bias = self.layer.bias
        return chunked_logprobs(
            states, weight, targets, bias, ask.temperature, self.softcap, ask.entropy, ask.collision
        )


def _logit_scale(config: Any) -> float:
    """The factor that some families put on their logits (Cohere, Falcon-H1; Granite divides)."""
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier"):
        scale *= getattr(config, name, None) or 1.0
    return scale / (getattr(config, "logits_scaling", None) or 1.0)


def spread(batch: Batch, values: Tensor) -> Tensor:
    """Values of present tokens, `[n]`, to `[N, T]` with zeros elsewhere."""
    where = present(batch)
    return values.new_zeros(where.shape).masked_scatter(where, values)


def completion_rows(batch: Batch, states: States) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of prompt and completion `[N, W]`, the length of each for all its cells `[N, W]`, and
    the cell of the state of each present token."""
    single = ungroup(batch)
    rows, lengths = join(single, torch.ones_like(single.group, dtype=torch.bool), states)
    starts = torch.arange(len(rows), device=rows.device) * rows.shape[1] + single.prompt_lengths
    first = starts if states is States.OWN else starts - 1
    source = (first[:, None] + steps(batch.tokens))[present(batch)]
    return rows, lengths[:, None].expand_as(rows), source


def places(rows: Tensor) -> Tensor:
    """The position of every cell of right-padded rows `[N, W]`."""
    return steps(rows).expand_as(rows)


@contextmanager
def perturbed(embeddings: nn.Module, perturb: Perturb | None, lengths: Tensor) -> Iterator[None]:
    """Inside it the input embeddings are what `perturb` makes of them."""
    if perturb is None:
        yield
        return
    hook = embeddings.register_forward_hook(lambda _, __, embedded: perturb(embedded, lengths))
    try:
        yield
    finally:
        hook.remove()


def trunk_of(model: PreTrainedModel) -> nn.Module:
    """The transformer without its head."""
    for name in (model.base_model_prefix, "model"):
        trunk = getattr(model, name, None) if name else None
        if isinstance(trunk, nn.Module):
            return trunk
    raise NotImplementedError("the model does not set its trunk apart from its head")


def position_limit(model: PreTrainedModel) -> int | None:
    """How many positions the model has learnt; None when they are not learnt one by one."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tokens = model.get_input_embeddings()
    learned = any(
        isinstance(module, nn.Embedding)
        and module is not tokens
        and limit is not None
        and 0 <= module.num_embeddings - limit <= 2  # OPT keeps two cells for padding
        for module in model.modules()
    )
    return limit if learned else None


def check_positions(batch: Batch, limit: int | None) -> None:
    """A clear error in place of an index out of range."""
    if limit is None or not len(batch.tokens):
        return
    longest = int((batch.prompt_lengths[batch.group] + batch.lengths).max())
    if longest > limit:
        raise BadInput(
            f"{longest} tokens in a prompt and its completion, more than the {limit} positions "
            "that the model has learnt",
            hint=f"use --max-length {limit} or less",
        )

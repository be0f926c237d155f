"""What a forward pass over a batch is asked for, and what it returns.

Shapes: N completions of at most T tokens, n tokens in all of them together, hidden states of size
h.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from alignzoo.batch import Batch
from alignzoo.errors import BadInput
from alignzoo.policy.divergence import HeadInputs
from alignzoo.policy.heads import ValueHead
from alignzoo.policy.layout import token_mask
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


class Head(Protocol):
    """What a divergence needs of an LM head."""

    def inputs(self, states: Tensor, temperature: float) -> HeadInputs:
        """Return what the distributions at `states [n, h]` are made of."""


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
    head: Head
    beta: float


DEFAULT_OPTIONS = ForwardOptions()
# The fields of `Outputs` are typed as tensors, because a caller knows what it requested.
NOT_REQUESTED: Any = None


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
    entropy: Tensor = NOT_REQUESTED
    log_sum_p2: Tensor = NOT_REQUESTED
    values: Tensor = NOT_REQUESTED
    hidden: Tensor = NOT_REQUESTED
    top_logprobs: Tensor = NOT_REQUESTED
    top_ids: Tensor = NOT_REQUESTED
    divergence: Tensor = NOT_REQUESTED

    @classmethod
    def of(cls, batch: Batch, *found: Tensor | None) -> Outputs:
        """Make outputs from values per token, `[n, ...]` each, in the order of the fields."""
        return cls(*(NOT_REQUESTED if x is None else scatter_tokens(batch, x) for x in found))

    @property
    def collision(self) -> Tensor | None:
        """Deprecated: use `log_sum_p2`."""
        warnings.warn("Outputs.collision is now log_sum_p2", DeprecationWarning, stacklevel=2)
        return self.log_sum_p2


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

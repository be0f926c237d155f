"""How a token is drawn from the model's distribution, and when a completion ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.data import Codec
from alignzoo.recipe import Recipe


@dataclass(frozen=True)
class Sampling:
    """What generation is told.

    `temperature` 0 takes the likeliest token. `top_k` (0: all), `top_p` and `min_p` leave out
    unlikely ones, in this order. A completion ends after one of `stop_ids`, after `stop`, texts
    that are looked for in what `decode` makes of it, or after `max_new_tokens`.
    """

    max_new_tokens: int
    stop_ids: Sequence[int]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: Sequence[str] = ()
    decode: Callable[[Sequence[int]], str] | None = None

    @classmethod
    def of(cls, recipe: Recipe, codec: Codec) -> Sampling:
        """As a recipe has it."""
        return cls(
            max_new_tokens=recipe.max_new_tokens,
            stop_ids=codec.stop_ids,
            temperature=recipe.temperature,
            top_k=recipe.top_k,
            top_p=recipe.top_p,
            min_p=recipe.min_p,
            stop=recipe.stop,
            decode=codec.decode,
        )

    @property
    def unchanged(self) -> bool:
        """Whether tokens are drawn from the policy's own distribution."""
        return (self.temperature, self.top_k, self.top_p, self.min_p) == (1.0, 0, 1.0, 0.0)

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether a completion is over with its last token."""
        if tokens[-1] in self.stop_ids:
            return True
        if not self.stop or self.decode is None:
            return False
        text = self.decode(tokens)
        return any(stop in text for stop in self.stop)

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Token ids `[N]` from logits `[N, V]`: the inverse cumulative distribution at
        `uniform [N]`, numbers in [0, 1).

        One random number per token, where multinomial sampling would need one per vocabulary entry.
        """
        if self.temperature == 0:
            return logits.argmax(-1)
        p = (logits / self.temperature).softmax(-1, dtype=torch.float64)
        cumulative = truncated(p, self.top_k, self.top_p, self.min_p).cumsum(-1)
        # What was left out, and rounding, leave the last sum below 1; scaling by it keeps the draw
        # inside the vocabulary.
        target = uniform[:, None] * cumulative[:, -1:]
        return (
            torch.searchsorted(cumulative, target, right=True)
            .squeeze(1)
            .clamp(max=logits.shape[-1] - 1)
        )


def truncated(p: Tensor, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Probabilities `[N, V]` with 0 for the tokens that are left out; not normalised again.

    In the order that transformers has: the `top_k` likeliest; of these the fewest whose share
    reaches `top_p` (nucleus sampling, Holtzman et al. 2019, https://arxiv.org/abs/1904.09751); of
    these the ones at least `min_p` times as likely as the likeliest (Nguyen et al. 2024,
    https://arxiv.org/abs/2407.01082). The likeliest token is always kept.
    """
    if 0 < top_k < p.shape[-1]:
        p = p * (p >= p.topk(top_k).values[:, -1:])
    if top_p < 1.0:
        ranked, order = p.sort(descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked
        kept = before < top_p * ranked.sum(-1, keepdim=True)
        kept[:, 0] = True
        p = p * torch.zeros_like(kept).scatter(-1, order, kept)
    if min_p > 0.0:
        p = p * (p >= min_p * p.max(-1, keepdim=True).values)
    return p

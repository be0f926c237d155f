"""The LM head in chunks: log-probs, entropy, the likeliest tokens and divergences per token."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.policy.divergence import HeadInputs, chunked_divergence
from alignzoo.policy.forward import ForwardOptions, wanted_ids
from alignzoo.policy.layout import token_mask
from alignzoo.policy.logprobs import LogitTransform, chunked_logprobs
from alignzoo.policy.top_logprobs import chunked_top_logprobs


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

"""Completions from the policy, in-process: prefill, then one token at a time with a cache.

Each row draws from a stream of random numbers of its own, so that a completion does not depend
on which other rows share its batch; rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.policy import Policy
from alignzoo.rollout.decoder import Decoder
from alignzoo.rollout.sampling import Sampling


@dataclass
class Completion:
    """Sampled token ids with the log-prob of each under the model, and whether it ended itself."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def logprob(self) -> float:
        return sum(self.logprobs)


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    mixture: float = 0.0,
    batch_size: int = 64,
    advance: Callable[[int], None] | None = None,
) -> list[Completion]:
    """One completion per prompt and seed.

    Args:
        policy: in eval mode; inside `policy.base()` it is the base that answers.
        prompts: token ids, no padding. One that stands there several times is computed once in
            each batch.
        seeds: one per prompt; the same seed gives the same completion in any batch.
        sampling: how tokens are drawn. Log-probs are the policy's own at that temperature (1 where
            it is 0), over the whole vocabulary, whatever top-k and its like left out; the token
            that ends a completion is kept as its last one.
        mixture: m, the reference's share in what each token is drawn from, pi^(1 - m) pi_ref^m
            over its sum; 0 is the policy, and no reference is asked.
        advance: called with the number of completions done.
    """
    done: list[Completion | None] = [None] * len(prompts)
    # Prompts of like length share a batch, so that little padding is computed.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        which = order[start : start + batch_size]
        noise = torch.stack([_uniforms(seeds[i], sampling.max_new_tokens) for i in which])
        completions = _generate_batch(policy, [prompts[i] for i in which], noise, sampling, mixture)
        for i, completion in zip(which, completions, strict=True):
            done[i] = completion
        if advance:
            advance(len(which))
    return [completion for completion in done if completion is not None]


def _uniforms(seed: int, length: int) -> Tensor:
    """`[length]` uniform numbers in [0, 1): one row's randomness, a number per token."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _generate_batch(
    policy: Policy, prompts: list[list[int]], noise: Tensor, sampling: Sampling, mixture: float
) -> list[Completion]:
    noise = noise.to(policy.device)
    different = list(dict.fromkeys(map(tuple, prompts)))
    decoders = [Decoder(policy, different)]
    if mixture:
        decoders.append(Decoder(policy, different, policy.as_reference))
    completions = [Completion() for _ in prompts]
    alive = list(range(len(prompts)))
    for t in range(noise.shape[1]):
        each = [decoder.logits() for decoder in decoders]
        if t == 0 and len(different) < len(prompts):  # from prompts to completions
            places = {prompt: place for place, prompt in enumerate(different)}
            spread = [places[tuple(prompt)] for prompt in prompts]
            each = [logits[spread] for logits in each]
            for decoder in decoders:
                decoder.select(spread)
        logits = each[0]
        # A mean of logits is, up to a constant, the mean of the log-probs.
        drawn = sampling.draw(logits.lerp(each[1], mixture) if mixture else logits, noise[alive, t])
        scaled = logits / (sampling.temperature or 1.0)
        logprobs = scaled.log_softmax(-1).gather(1, drawn[:, None]).squeeze(1)
        for row, token, logprob in zip(alive, drawn.tolist(), logprobs.tolist(), strict=True):
            if not completions[row].ended:  # else it only waits to leave the batch
                completions[row].tokens.append(token)
                completions[row].logprobs.append(logprob)
                completions[row].ended = sampling.ends(completions[row].tokens)
        going = [k for k, row in enumerate(alive) if not completions[row].ended]
        if not going:
            break
        for decoder in decoders:
            decoder.append(drawn)
        # Copying the cache costs about as much as a step, so rows leave in bulk.
        if len(going) <= 0.75 * len(alive):
            for decoder in decoders:
                decoder.select(going)
            alive = [alive[k] for k in going]
    return completions

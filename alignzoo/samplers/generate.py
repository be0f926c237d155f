"""Completions from the policy, in-process: prefill, then one token at a time with a cache.

Each row draws from a stream of random numbers of its own, so that a completion does not depend
on which other rows share its batch; rows that have ended leave the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.policy import Policy
from alignzoo.samplers.cache import roomy_cache
from alignzoo.samplers.sampling import Sampling


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
    batch_size: int = 64,
    advance: Callable[[int], None] | None = None,
) -> list[Completion]:
    """One completion per prompt and seed.

    Args:
        policy: in eval mode; inside `policy.base()` it is the base that answers.
        prompts: token ids, no padding. One that stands there several times is computed once in
            each batch.
        seeds: one per prompt; the same seed gives the same completion in any batch.
        sampling: how tokens are drawn. Log-probs are those of temperature 1 over the whole
            vocabulary, the policy's own, however that may be; the token that ends a completion is
            kept as its last one.
        advance: called with the number of completions done.
    """
    done: list[Completion | None] = [None] * len(prompts)
    # Prompts of like length share a batch, so that little padding is computed.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        which = order[start : start + batch_size]
        noise = torch.stack([_stream(seeds[i], sampling.max_new_tokens) for i in which])
        completions = _generate_batch(policy, [prompts[i] for i in which], noise, sampling)
        for i, completion in zip(which, completions, strict=True):
            done[i] = completion
        if advance:
            advance(len(which))
    return [completion for completion in done if completion is not None]


def _stream(seed: int, length: int) -> Tensor:
    """`[length]` uniform numbers in [0, 1): one row's randomness, a number per token."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _generate_batch(
    policy: Policy, prompts: list[list[int]], noise: Tensor, sampling: Sampling
) -> list[Completion]:
    device, model, virtual = policy.device, policy.network, policy.virtual
    different = list(dict.fromkeys(map(tuple, prompts)))
    tokens, attention = _padded([[0] * virtual.opening + list(prompt) for prompt in different])
    tokens, attention, noise = tokens.to(device), attention.to(device), noise.to(device)
    recurrent = _recurrent(model)
    cache: Any = roomy_cache(model.config)
    virtual.fill(cache, len(different))
    ahead = attention.new_ones(len(different), virtual.count - virtual.opening)
    attention = torch.cat([ahead, attention], 1)
    completions = [Completion() for _ in prompts]
    alive = list(range(len(prompts)))
    for t in range(noise.shape[1]):
        positions = (attention.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        memory = {"past_key_values": cache, "attention_mask": attention, "position_ids": positions}
        if recurrent:
            memory = {"cache_params": cache, "attention_mask": attention[:, -tokens.shape[1] :]}
        # As in training, so that the log-probs are the same.
        with policy.autocast(), virtual.seen(positions):
            output = model(
                input_ids=tokens,
                use_cache=True,
                logits_to_keep=1,
                **memory,
            )
        logits = output.logits[:, -1].float()
        if t == 0 and len(different) < len(prompts):  # from prompts to completions
            places = {prompt: place for place, prompt in enumerate(different)}
            spread = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=device)
            cache.reorder_cache(spread)
            logits, attention = logits[spread], attention[spread]
        drawn = sampling.draw(logits, noise[alive, t])
        logprobs = logits.log_softmax(-1).gather(1, drawn[:, None]).squeeze(1)
        for row, token, logprob in zip(alive, drawn.tolist(), logprobs.tolist(), strict=True):
            if not completions[row].ended:  # else it only waits to leave the batch
                completions[row].tokens.append(token)
                completions[row].logprobs.append(logprob)
                completions[row].ended = sampling.ends(completions[row].tokens)
        going = [k for k, row in enumerate(alive) if not completions[row].ended]
        if not going:
            break
        tokens = drawn[:, None]
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        # Copying the cache costs about as much as a step, so rows leave in bulk.
        if len(going) <= 0.75 * len(alive):
            keep = torch.tensor(going, device=device)
            cache.reorder_cache(keep)
            tokens, attention = tokens[keep], attention[keep]
            alive = [alive[k] for k in going]
    return completions


def _recurrent(model: Any) -> bool:
    """Whether a model has another name for its cache: no places, and a mask of new tokens alone."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "past_key_values" not in inspect.signature(base.forward).parameters


def _padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Left-padded ids `[N, W]`, and 1 where there is one."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return tokens, attention

"""Generation in this process: prefill, then one token at a time with a cache.

Each row has its own random numbers, so that a completion does not depend on the other rows of its
batch; rows that have ended leave the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import compress

import torch
from torch import Tensor

from alignzoo.batch import Example, collate
from alignzoo.errors import BadInput, RunFailed, count
from alignzoo.ledger import Cost
from alignzoo.policy import Policy
from alignzoo.policy.decoder import Decoder, make_decoder
from alignzoo.rollout.sampling import Sampling

Charge = Callable[[str, Cost], None]  # with the purpose of a cost, as `Ledger.charge`


@dataclass
class Completion:
    """A sampled completion.

    Args:
        tokens: token ids, with the one that ends it.
        logprobs: the log-prob of each token, in nats; see `generate`.
        ended: False if it was cut off by the maximum length.
        mask: False for each token that the policy did not write, such as a tool's output inside the
            completion; None if it wrote all of them. Such a token is context: nothing is learned
            from it, and its log-prob is not read.
        rewards: of an episode, the reward of each turn at the turn's last token, 0 elsewhere; None
            without an environment.
        prompt: the ids that it was drawn after, if they are not those of the row.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    mask: list[bool] | None = None
    rewards: list[float] | None = None
    prompt: list[int] | None = None

    @property
    def written(self) -> list[bool]:
        """Return which tokens the policy wrote, one bool per token.

        Raise `RunFailed` if the mask has another length than the tokens.
        """
        if self.mask is None:
            return [True] * len(self.tokens)
        if len(self.mask) != len(self.tokens):
            raise RunFailed(
                f"a sampler gave a mask of {len(self.mask)} for {count(len(self.tokens), 'token')}",
                hint="Completion.mask has one bool per token: False if the policy did not write it",
            )
        return self.mask

    @property
    def length(self) -> int:
        """Return the number of tokens that the policy wrote."""
        return sum(self.written)

    @property
    def logprob(self) -> float:
        """Return the log-prob of the tokens that the policy wrote, in nats."""
        return sum(compress(self.logprobs, self.written))


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
    charge: Charge | None = None,
) -> list[Completion]:
    """Draw one completion per prompt and seed.

    A completion ends at the last position that the model has; raise `BadInput` if a prompt leaves
    none.

    Args:
        policy: in eval mode. Inside `policy.base()` the base model generates.
        prompts: token ids without padding. Equal prompts are computed once in each batch.
        seeds: one per prompt; the same seed gives the same completion in any batch.
        sampling: the sampling settings.
        mixture: m in [0, 1]; each token is drawn from pi^(1 - m) pi_ref^m, normalised. With 0 the
            reference is not computed.
        batch_size: the most prompts in one batch.
        advance: called with the number of completions done since the last call.
        charge: called with the cost of each batch under "generation", and under "reference" with
            that of the reference in a mixture. Without it the model charges its passes itself.

    Returns:
        Completions in the order of the prompts. Log-probs are the policy's at the temperature (1
        for greedy decoding) over the whole vocabulary, without the filters such as top-k.
    """
    check_room(policy, prompts)
    done: list[Completion | None] = [None] * len(prompts)
    # Prompts of similar length share a batch, which saves padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        which = order[start : start + batch_size]
        # (N, L) with L = max_new_tokens
        noise = torch.stack([_uniforms(seeds[i], sampling.max_new_tokens) for i in which])
        batch = [prompts[i] for i in which]
        with policy.meter.covered() if charge else nullcontext():
            completions, decoders = _generate_batch(policy, batch, noise, sampling, mixture)
        if charge:
            _charge_batch(policy, batch, completions, decoders, charge)
        for i, completion in zip(which, completions, strict=True):
            done[i] = completion
        if advance:
            advance(len(which))
    return [completion for completion in done if completion is not None]


def check_room(policy: Policy, prompts: Sequence[list[int]]) -> None:
    """Raise `BadInput` if a prompt takes all positions that the model has."""
    limit, longest = policy.positions, max(map(len, prompts), default=0)
    if limit is not None and longest >= limit:
        raise BadInput(
            f"a prompt of {count(longest, 'token')} leaves no room for an answer in the "
            f"{count(limit, 'position')} that the model has",
            where=policy.name,
            hint="shorten the prompt; in a chat, start over",
        )


def _uniforms(seed: int, length: int) -> Tensor:
    """Return uniform numbers in [0, 1) for one row, `[length]`: one per token."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _generate_batch(
    policy: Policy, prompts: list[list[int]], noise: Tensor, sampling: Sampling, mixture: float
) -> tuple[list[Completion], list[Decoder]]:
    """Draw completions of N prompts by random numbers `noise [N, L]`, one per token.

    Return them with the decoder of the policy, and in a mixture that of the reference.
    """
    noise = noise.to(policy.device)
    unique = list(dict.fromkeys(map(tuple, prompts)))  # B prompts
    longest = max(map(len, unique)) + noise.shape[1]
    decoders = [make_decoder(policy, unique, longest)]
    if mixture:
        decoders.append(make_decoder(policy, unique, longest, policy.as_reference))
    limit = policy.positions or math.inf
    last = [limit - len(prompt) - 1 for prompt in prompts]  # the index of the last possible token
    completions = [Completion() for _ in prompts]
    alive = list(range(len(prompts)))
    for t in range(noise.shape[1]):
        each = [decoder.logits() for decoder in decoders]  # (B, V) at t = 0, then (n, V)
        if t == 0 and len(unique) < len(prompts):  # one row per completion from here on
            rows = {prompt: row for row, prompt in enumerate(unique)}
            expanded = [rows[tuple(prompt)] for prompt in prompts]
            each = [logits[expanded] for logits in each]  # (N, V)
            for decoder in decoders:
                decoder.select(expanded)
        logits = each[0]  # (n, V) for the n rows alive
        # A mean of logits is, up to a constant, the mean of the log-probs.
        mixed = logits.lerp(each[1], mixture) if mixture else logits
        drawn = sampling.draw(mixed, noise[alive, t])  # (n,)
        scaled = logits / (sampling.temperature or 1.0)
        logprobs = scaled.log_softmax(-1).gather(1, drawn[:, None]).squeeze(1)  # (n,)
        for row, token, logprob in zip(alive, drawn.tolist(), logprobs.tolist(), strict=True):
            if not completions[row].ended:  # ended rows stay until the next compaction
                completions[row].tokens.append(token)
                completions[row].logprobs.append(logprob)
                completions[row].ended = sampling.ends(completions[row].tokens)
        going = [k for k, row in enumerate(alive) if not completions[row].ended and t < last[row]]
        if not going:
            break
        for decoder in decoders:
            decoder.append(drawn)
        # Selecting rows copies the cache, which costs about as much as a step: remove many at once.
        if len(going) <= 0.75 * len(alive) or any(t >= last[row] for row in alive):
            for decoder in decoders:
                decoder.select(going)
            alive = [alive[k] for k in going]
    return completions, decoders


def _charge_batch(
    policy: Policy,
    prompts: list[list[int]],
    completions: list[Completion],
    decoders: list[Decoder],
    charge: Charge,
) -> None:
    """Charge the completions of a batch, whose equal prompts were computed once."""
    drawn: dict[tuple[int, ...], list[list[int]]] = {}
    for prompt, completion in zip(prompts, completions, strict=True):
        drawn.setdefault(tuple(prompt), []).append(completion.tokens)
    batch = collate([Example(list(prompt), tokens) for prompt, tokens in drawn.items()])
    charge("generation", policy.generation_cost(batch, decoders[0].passes))
    if len(decoders) > 1:
        passes = decoders[1].passes
        charge("reference", policy.generation_cost(batch, passes, reference=True))

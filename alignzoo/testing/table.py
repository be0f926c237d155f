"""Log-probs from a table instead of a model: exact, known in advance, and free of charge.

The table gives a log-prob to each token by its prompt, the tokens before it and itself, as a
language model does. Each forward pass hands it out as a leaf tensor in float64, so that the
gradient of a loss with respect to every single log-prob can be read afterwards, whatever batch the
token was in.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.ledger import Ledger
from alignzoo.policy import Outputs, Policy, generalized_jsd
from alignzoo.run.forwards import Forwards

VOCABULARY = 1024  # tokens, the size of zoo-tiny's


class Place(NamedTuple):
    """A token of a completion: the prompt, the completion and the position in it."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    position: int


Gradient = dict[Place, float]


@dataclass(frozen=True)
class LogprobTable:
    """A table of log-probs in nats.

    Args:
        apart: the policy's log-prob of a token differs from the reference's by up to this.
        moved: it differs by up to this from the one that the token was drawn with.
        shifts: added to the policy's log-prob of single tokens.
        lean: by completion, how far apart policy and reference are in each of its tokens: above 0
            the reference is lower by that, below 0 the policy.
        depth: subtracted from every log-prob, for room to move up.
        reference_shift: added to the reference's log-probs.
        certain: True if each token has the probability 1.
        dtype: of the log-probs that are handed out; a real model's are float32.
        renamed: a token id that stands for another one, except for the last token of a completion.
    """

    apart: float = 0.3
    moved: float = 0.0
    shifts: Mapping[Place, float] = field(default_factory=dict)
    lean: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    depth: float = 0.0
    reference_shift: float = 0.0
    certain: bool = False
    dtype: torch.dtype = torch.float64
    renamed: Mapping[int, int] = field(default_factory=dict)

    def places(self, batch: Batch) -> list[list[Place]]:
        """Return the place of each token of each completion."""
        prompts = prompts_of(batch)
        return [
            self.places_of(prompts[group], tokens)
            for group, tokens in zip(batch.group.tolist(), batch.completions(), strict=True)
        ]

    def places_of(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[Place]:
        """Return the place of each token of a completion."""
        named = [self.renamed.get(token, token) for token in tokens[:-1]] + list(tokens[-1:])
        return [Place(tuple(prompt), tuple(named), t) for t in range(len(tokens))]

    def reference(self, place: Place) -> float:
        """Return the reference's log-prob of a token."""
        lean = max(self.lean.get(place.completion, 0.0), 0.0)
        return self.base(place) + self.reference_shift * chance("shift", place) - lean

    def base(self, place: Place) -> float:
        """Return a log-prob between -4 and -1 nats, from which all others are a little away."""
        return -1.0 - 3.0 * chance("reference", place) - self.depth

    def drawn(self, place: Place) -> float:
        """Return the log-prob that a completion was drawn with."""
        lean = min(self.lean.get(place.completion, 0.0), 0.0)
        return self.base(place) + self.apart * (2 * chance("policy", place) - 1) + lean

    def teacher(self, place: Place) -> float:
        """Return the teacher's log-prob of a token, which may have seen another prompt."""
        return -1.0 - 3.0 * chance("teacher", place._replace(prompt=())) - self.depth

    def policy(self, place: Place) -> float:
        """Return the policy's log-prob of a token."""
        moved = self.moved * (2 * chance("moved", place) - 1)
        return self.drawn(place) + moved + self.shifts.get(place, 0.0)


@lru_cache(maxsize=100_000)
def chance(name: str, place: Place) -> float:
    """Return a number in [0, 1) that depends on what a model would see of a token."""
    seen = repr((name, place.prompt, place.completion[: place.position + 1]))
    return int.from_bytes(hashlib.blake2b(seen.encode(), digest_size=6).digest(), "big") / 2**48


class TableForwards(Forwards):
    """The forward passes of a run, from a table.

    Args:
        temperatures: of the forward passes so far, of the policy and of the reference.
        seconds: spent in making log-probs and values so far, which is not the plugin's time.
    """

    def __init__(self, policy: Policy, ledger: Ledger, table: LogprobTable):
        super().__init__(policy, ledger)
        self.table = table
        self.temperatures: set[float] = set()
        self.seconds = 0.0
        self._leaves: list[tuple[Tensor, list[list[Place]]]] = []

    def policy(
        self,
        batch: Batch,
        *,
        perturb: Any = None,
        values: bool = False,
        temperature: float = 1.0,
        **wanted: Any,
    ) -> Outputs:
        """Return the table's log-probs of the policy, with what else is wanted."""
        self.temperatures.add(temperature)
        leaf = self._leaf(batch, temperature)
        outputs = Outputs(leaf)
        inside = batch_positions(batch)
        if wanted.get("entropy"):
            outputs.entropy = torch.where(inside, 0.3 + 0.1 * leaf**2, 0.0)
        if wanted.get("log_sum_p2"):
            outputs.log_sum_p2 = torch.where(inside, 0.5 * leaf.detach() - 0.1, 0.0)
        if values:
            outputs.values = self.values(batch)
        add_tops(outputs, batch, wanted)
        for observer, at in self._observers:
            if perturb is None and temperature == at:
                observer(batch, outputs.logprobs)
        return outputs

    def reference(self, batch: Batch, *, temperature: float = 1.0, **wanted: Any) -> Outputs:
        """Return the table's log-probs of the reference."""
        self.temperatures.add(temperature)
        outputs = Outputs(self._logprobs(batch, self.table.reference, temperature))
        return add_tops(outputs, batch, wanted)

    def teacher(self, batch: Batch, *, temperature: float = 1.0, **wanted: Any) -> Outputs:
        """Return the table's log-probs of the teacher."""
        self.temperatures.add(temperature)
        outputs = Outputs(self._logprobs(batch, self.table.teacher, temperature))
        return add_tops(outputs, batch, wanted)

    def divergence(
        self,
        batch: Batch,
        *,
        beta: float,
        teacher_batch: Batch | None = None,
        temperature: float = 1.0,
        **wanted: Any,
    ) -> Outputs:
        """Return the policy's log-probs, and the divergence over two outcomes: token or another."""
        outputs = self.policy(batch, temperature=temperature, **wanted)
        began = time.perf_counter()
        theirs = self.teacher(teacher_batch or batch, temperature=temperature).logprobs
        # (N, T, 2) each
        apart = generalized_jsd(with_rest(outputs.logprobs), with_rest(theirs), beta)
        outputs.divergence = torch.where(batch_positions(batch), apart, 0.0)
        self.seconds += time.perf_counter() - began
        return outputs

    def values(self, batch: Batch) -> Tensor:
        """Return values between -0.5 and 0.5, `[N, T]`."""
        found = self._fill(batch, lambda place: chance("value", place) - 0.5)
        return found.requires_grad_(torch.is_grad_enabled())

    def scores(self, batch: Batch, *, per_token: bool = False) -> Tensor:
        """Return the score of each completion, `[N]`, or of each token, `[N, T]`.

        They are the policy's log-probs with an offset, so that their gradient is read like theirs.
        """
        scores = self._leaf(batch, 1.0) + 1.5
        return scores if per_token else batch.last(scores)

    def _leaf(self, batch: Batch, temperature: float) -> Tensor:
        leaf = self._logprobs(batch, self.table.policy, temperature)
        if torch.is_grad_enabled():
            leaf.requires_grad_()
            began = time.perf_counter()
            self._leaves.append((leaf, self.table.places(batch)))
            self.seconds += time.perf_counter() - began
        return leaf

    def _fill(self, batch: Batch, value: Any, temperature: float = 1.0) -> Tensor:
        began = time.perf_counter()
        out = torch.zeros(batch.tokens.shape, dtype=torch.float64)
        for row, places in zip(out, self.table.places(batch), strict=True):
            row[: len(places)] = torch.tensor([value(place) for place in places]).double()
        found = (out / temperature).to(self.table.dtype)
        self.seconds += time.perf_counter() - began
        return found

    def _logprobs(self, batch: Batch, value: Any, temperature: float) -> Tensor:
        """Return log-probs `[N, T]`, 0 where there is no token."""
        found = self._fill(batch, value, temperature)
        return torch.zeros_like(found) if self.table.certain else found

    @contextmanager
    def recorded(self) -> Iterator[Gradient]:
        """Collect the gradients of the log-probs handed out inside the block, by token.

        The dictionary is filled when the block ends.
        """
        self._leaves.clear()
        found: Gradient = defaultdict(float)
        yield found
        for leaf, rows in self._leaves:
            if leaf.grad is None:
                continue
            for gradient, places in zip(leaf.grad.tolist(), rows, strict=True):
                for place in places:
                    found[place] += gradient[place.position]
        self._leaves.clear()


def add_tops(outputs: Outputs, batch: Batch, wanted: Mapping[str, Any]) -> Outputs:
    """Add log-probs of several tokens, if they are wanted: all but the batch's are equally likely.

    The likeliest are the token of the batch and those that follow it in the vocabulary.
    """
    ids, tokens = wanted.get("top_ids"), batch.tokens[..., None]  # (N, T, K), (N, T, 1)
    if wanted.get("top_k"):
        ids = (tokens + torch.arange(wanted["top_k"])) % VOCABULARY
    if ids is None:
        return outputs
    own, rest = with_rest(outputs.logprobs).split(1, -1)  # (N, T, 1) both
    found = torch.where(ids == tokens, own, rest - math.log(VOCABULARY - 1))
    inside = batch_positions(batch)[..., None]
    outputs.top_ids = torch.where(inside, ids, 0)
    outputs.top_logprobs = torch.where(inside, found, 0.0)
    return outputs


def with_rest(logprobs: Tensor) -> Tensor:
    """Return the log-probs of two outcomes, `[..., 2]`, from those of the first, at most -1e-6."""
    certain = logprobs.clamp(max=-1e-6)
    return torch.stack([certain, torch.log(-torch.expm1(certain))], -1)


def prompts_of(batch: Batch) -> list[list[int]]:
    """Return the token ids of each prompt, without padding."""
    rows = zip(batch.prompts, batch.prompt_lengths.tolist(), strict=True)
    return [ids[:length].tolist() for ids, length in rows]


def batch_positions(batch: Batch) -> Tensor:
    """Return which cells hold a token, whether it counts or not, `[N, T]`."""
    return torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]

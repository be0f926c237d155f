"""Measure the memory of the passes of a run on a policy without weights.

What runs is the code of the real passes: layers, attention, adapters, head, autograd. Only the
layout of a batch, which depends on its lengths, is made of real numbers, and made first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alignzoo.algorithm import Needs
from alignzoo.batch import Batch
from alignzoo.errors import BadInput, one_line
from alignzoo.memory.tracker import MemoryTracker, Peak
from alignzoo.policy.adapters import use_value_adapter
from alignzoo.policy.decoder import SPARE_LENGTH, CachedDecoder
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.layout import HiddenState, pack_batch
from alignzoo.policy.logprobs import assume_device
from alignzoo.policy.scoring import SharedScorer, completion_rows
from alignzoo.policy.weightless import Weightless
from alignzoo.rollout import Sampling


class SamplingPeak(NamedTuple):
    """The memory of drawing completions at once: the most bytes, and those of keys and values."""

    peak: int
    cache: int


@dataclass(frozen=True)
class PassMeter:
    """Measures passes of a policy without weights, as they are on a type of device."""

    model: Weightless
    device_type: str

    def update(
        self, batch: Batch, needs: Needs, *, entropy: bool, reference: bool, accumulates: bool
    ) -> Peak:
        """Return the peak of forward and backward over a micro-batch, without the weights.

        With `accumulates`, gradients of an earlier micro-batch are there from the start. With
        `reference`, the reference is computed between the two passes.
        """
        policy = self.model.policy
        parameters = policy.parameters()
        rows = self._lay_out(batch)
        policy.train()
        try:
            with self._measuring() as tracker:
                if accumulates:
                    for parameter in parameters:
                        parameter.grad = torch.empty_like(parameter)
                found = self._outputs(rows, needs, entropy)
                if reference:
                    with torch.no_grad(), policy.as_reference():
                        self._logprobs(rows, False)
                total = torch.stack([x.sum() for x in found]).sum()
                total.backward()
                return tracker.peak(p.grad for p in parameters if p.grad is not None)
        finally:
            for parameter in parameters:
                parameter.grad = None

    def generation(self, prompt: int, prompts: int, rows: int, sampling: Sampling) -> SamplingPeak:
        """Return the memory of drawing completions of `prompts` prompts of that many tokens.

        They are `rows` together, all of the longest length that `sampling` allows.
        """
        policy, length = self.model.policy, sampling.max_new_tokens
        noise = torch.zeros(rows, dtype=torch.float64)
        policy.eval()
        # Virtual tokens take the room of ordinary ones.
        prompt += policy.virtual.count
        bare = policy.base() if policy.virtual.count else nullcontext()
        with torch.no_grad(), bare, self._measuring() as tracker:
            decoder = CachedDecoder(policy, [[0] * prompt] * prompts)
            logits = decoder.logits()
            if rows > prompts:
                which = [row % prompts for row in range(rows)]
                logits = logits[which]
                decoder.select(which)
            decoder.append(sampling.draw(logits, noise))
            del logits
            prefill = tracker.peak().total
            drawn = sampling.draw(decoder.logits(), noise)
            del drawn
            step, held = tracker.peak().total, tracker.held
        # A step beyond the first buffer: keys and values grow, all else is as in the first step.
        stored = 1 + SPARE_LENGTH
        cache = held * (prompt + length + SPARE_LENGTH) // (prompt + stored)
        return SamplingPeak(max(prefill, step - held + cache), cache)

    @contextmanager
    def _measuring(self) -> Iterator[MemoryTracker]:
        """Run a block without values, and track its memory; an error becomes `BadInput`."""
        policy = self.model.policy
        vocabulary = policy.model.config.get_text_config().vocab_size
        tracker = MemoryTracker(vocabulary)
        tracker.ignore(self.model.tensors)
        try:
            with assume_device(self.device_type), self.model.mode, tracker:
                yield tracker
        except BadInput:
            raise
        except Exception as error:  # an unknown model may fail in any way
            kind = policy.model.config.model_type
            raise BadInput(
                f"the memory of a {kind} model cannot be estimated: {one_line(error)}",
                where=policy.name,
                hint="its layers need values; a short run measures it, `peak_memory_bytes` of the "
                "ledger in run.json: alignzoo run ALGO --steps 2",
            ) from error

    def _lay_out(self, batch: Batch) -> Mapping[HiddenState, Any]:
        """Return the packed row of a batch, or its padded rows, without values."""
        policy = self.model.policy
        arrange = pack_batch if isinstance(policy._scorer, SharedScorer) else completion_rows
        prepended = policy.virtual.prepend_to(batch)
        found: dict[HiddenState, Any] = {}
        for states in HiddenState:
            found[states] = without_values(arrange(prepended, states), self.model.mode)
        return found

    def _outputs(
        self, rows: Mapping[HiddenState, Any], needs: Needs, entropy: bool
    ) -> list[Tensor]:
        """Return what a loss reads, `[n]` each: scores, or log-probs, and values."""
        policy = self.model.policy
        if needs.score_head and policy.score_head is not None:
            return [policy.score_head(self._states(rows, HiddenState.OF_TOKEN))]
        logprobs, states = self._logprobs(rows, entropy)
        found = [logprobs]
        if policy.value_head is not None:
            if policy.values_apart:
                with use_value_adapter(policy.model):
                    states = self._states(rows, HiddenState.PREDICTING)
            found.append(policy.value_head(states))
        return found

    def _logprobs(self, rows: Mapping[HiddenState, Any], entropy: bool) -> tuple[Tensor, Tensor]:
        """Return log-probs `[n]` and the states `[n, h]` that they were computed from."""
        states = self._states(rows, HiddenState.PREDICTING)
        targets = torch.empty(len(states), dtype=torch.long)
        scorer: Any = self.model.policy._scorer
        with self.model.policy.autocast():
            found, _, _ = scorer.head.of_targets(states, targets, ForwardOptions(entropy=entropy))
        return found, states

    def _states(self, rows: Mapping[HiddenState, Any], which: HiddenState) -> Tensor:
        """Return the states `[n, h]` that stand for the tokens of completions."""
        policy, row = self.model.policy, rows[which]
        scorer: Any = policy._scorer
        # Where virtual tokens go depends on positions; added to all embeddings, they have the
        # same gradient in the same places.
        added = None
        if policy.virtual.count:
            weight: Tensor = policy.virtual.weight  # type: ignore[attr-defined]

            def added(embedded: Tensor, _: Tensor) -> Tensor:
                return embedded + weight[0, : embedded.shape[-1]]

        options = ForwardOptions(perturb=added)
        with policy.autocast(), options.apply(scorer.embeddings, row.lengths, row.positions):
            if isinstance(scorer, SharedScorer):
                hidden = scorer.hidden(row)  # (L, h)
            else:
                hidden = scorer.backbone(input_ids=row.ids, use_cache=False)[0].flatten(0, 1)
        return hidden.index_select(0, row.source)


def without_values(value: Any, mode: FakeTensorMode) -> Any:
    """Replace the tensors of a layout, also those of its blocks, by tensors without values."""
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: without_values(getattr(value, f.name), mode) for f in fields(value)}
        return type(value)(**found)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*(without_values(part, mode) for part in value))
    return value

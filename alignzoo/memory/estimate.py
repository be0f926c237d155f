"""Add up the memory of each phase of a run, and the operations and the seconds of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.algorithm import Traits
from alignzoo.batch import Example, collate
from alignzoo.data import Data, Prompts
from alignzoo.memory.longest import completions_drawn, longest_micro_batch, with_completions
from alignzoo.memory.machine import Machine
from alignzoo.memory.passes import PassMeter
from alignzoo.memory.sizes import LOADING, MOMENTS, SAMPLING, SAVING, STEP, RunEstimate
from alignzoo.memory.tracker import storage_bytes
from alignzoo.policy import HiddenState
from alignzoo.policy.weightless import Weightless
from alignzoo.recipe import Recipe
from alignzoo.rollout import Sampling

DRAWN_AT_ONCE = 64  # completions that are drawn together
SAMPLED_ROWS = 32  # rows whose mean cost stands for that of all


@dataclass(frozen=True)
class RunEstimator:
    """Estimates a run for a machine, at any `--micro-tokens`.

    `stored` are the bytes of the files that the weights are read from, 0 if they are mapped into
    memory as they are, `others` those of further models, of rewards for example, and `moments`
    those of the optimizer's state; None: AdamW's.
    """

    model: Weightless
    data: Data
    algorithm: Any
    recipe: Recipe
    machine: Machine
    sampling: Sampling
    stored: int = 0
    others: int = 0
    moments: int | None = None

    def at(self, micro_tokens: int) -> RunEstimate:
        """Estimate the run with micro-batches of so many tokens."""
        longest = longest_micro_batch(self.data.train, self.algorithm, self.recipe, micro_tokens)
        traits, policy = Traits.of(self.algorithm), self.model.policy
        held = self._held()
        trained = held["adapter"] or held["weights"]
        offline = self.algorithm.data is not Prompts
        reference = traits.needs.reference and offline and not self.recipe.cache_reference
        peak = PassMeter(self.model, self.machine.device.type).update(
            longest.batch,
            traits.needs,
            entropy=not offline,
            reference=reference,
            accumulates=not longest.alone,
        )
        optimizer = MOMENTS * trained if self.moments is None else self.moments
        static = sum(held.values()) + self.machine.base
        parts = {
            **held,
            "gradients": peak.gradients,
            "optimizer": optimizer,
            "activations": peak.activations,
            "logits": peak.logits,
        }
        cache, phases = self._sampling(static, trained, optimizer)
        if self.machine.device.type == "cpu":
            phases[LOADING] = self.machine.base + held["weights"] + self.stored
            phases[SAVING] = static + trained + 2 * optimizer  # it copies them
        return RunEstimate(
            model=self.recipe.model,
            machine=self.machine.name,
            parameters=policy.parameter_count,
            trained=policy.trainable_count,
            micro_tokens=micro_tokens,
            groups=len(longest.batch),
            tokens=policy.work(longest.batch).tokens,
            parts={name: size for name, size in parts.items() if size},
            phases={STEP: static + optimizer + peak.total, **phases},
            cache=cache,
            base=self.machine.base,
            memory=self.machine.memory,
            **self._cost(),
        )

    def _held(self) -> dict[str, int]:
        """Return the bytes that are held from loading to the end, by part."""
        policy = self.model.policy
        everything = storage_bytes(self.model.tensors)
        frozen = list(self.model.frozen.parameters()) if self.model.frozen is not None else []
        trained = 0 if self.recipe.adapter == "none" else storage_bytes(policy.parameters())
        copy = storage_bytes(frozen)
        return {
            "weights": everything - copy - trained,
            "adapter": trained,
            "reference copy": copy,
            "reward models": self.others,
        }

    def _sampling(self, static: int, trained: int, optimizer: int) -> tuple[int, dict[str, int]]:
        """Return the bytes of keys and values, and the phase in which completions are drawn."""
        traits, drawn = Traits.of(self.algorithm), completions_drawn(self.algorithm)
        own = drawn > 0 and self.recipe.sampler is None
        if not own and not (self.recipe.eval_size and traits.generates):
            return 0, {}
        held_out = self.data.test[: self.recipe.eval_size]
        rows = self.data.train if own else held_out or self.data.train
        prompts = min(len(rows), self.recipe.batch_size if own else self.recipe.eval_size)
        at_once = min(prompts * max(drawn, 1), DRAWN_AT_ONCE)
        found = PassMeter(self.model, self.machine.device.type).generation(
            max(len(row.prompt) for row in rows),
            min(prompts, math.ceil(at_once / max(drawn, 1))),
            at_once,
            self.sampling,
        )
        taken = static + trained + (optimizer if own else 0)  # gradients stay until the next step
        return found.cache, {SAMPLING: taken + found.peak}

    def _cost(self) -> dict[str, Any]:
        """Return operations and seconds of an average step, and what they are computed from."""
        batch = [
            with_completions(row, self.algorithm, self.recipe)
            for row in spread(self.data.train, SAMPLED_ROWS)
        ]
        scale = self.recipe.batch_size / len(batch)
        rows, policy = collate(batch), self.model.policy
        needs, machine = Traits.of(self.algorithm).needs, self.machine
        if needs.score_head:
            flops = policy.cost(
                rows, states=HiddenState.OF_TOKEN, lm_head=False, backward=True
            ).flops
        else:
            flops = policy.cost(rows, backward=True).flops
        if needs.values == "own":
            flops += policy.cost(rows, lm_head=False, backward=True).flops
        if needs.reference:
            flops += policy.cost(rows, reference=True).flops
        flops *= scale
        seconds = flops / machine.flops
        if completions_drawn(self.algorithm) and self.recipe.sampler is None:
            passes = self.recipe.max_new_tokens
            parts = math.ceil(len(rows.tokens) * scale / DRAWN_AT_ONCE)
            drawn = policy.generation_cost(rows, passes).flops * scale
            drawn /= Traits.of(self.algorithm).rounds.iterations
            read = passes * parts * storage_bytes(self.model.tensors)
            seconds += max(drawn / machine.flops, read / machine.bandwidth)
            flops += drawn
        return {"flops": flops, "seconds": seconds, "speed": machine.source}


def spread(rows: Sequence[Example], most: int) -> list[Example]:
    """Return at most so many rows, at equal distances."""
    step = max(len(rows) / most, 1.0)
    return [rows[int(i * step)] for i in range(min(len(rows), most))]

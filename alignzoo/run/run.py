"""The run: the one object that every hook is given."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from alignzoo.algorithm import rounds_of, splits_of
from alignzoo.batch import Batch, collate
from alignzoo.data import Codec, Data, EpochOrder, SourceSize
from alignzoo.hooks import RunPlugins
from alignzoo.ledger import Ledger
from alignzoo.policy import HiddenState, Outputs, Perturb, Policy
from alignzoo.policy.known import ReferenceCache
from alignzoo.recipe import Recipe
from alignzoo.record import Record
from alignzoo.rollout import DefaultSampler, Mismatch, Sampler
from alignzoo.ui import UI


@dataclass(eq=False)
class Run:
    """A run in progress. Plugins read it, and ask it for log-probs; the loop moves it on.

    `policy(batch)`, `reference(batch)` and, for an algorithm that needs a score or a value head,
    `scores(batch)` and `values(batch)` are the forwards, charged to the ledger; `model` is what
    stands behind them. `step` counts optimizer steps done, `round` rounds done; `state` holds
    numbers that a plugin carries from step to step, and is part of a checkpoint. `observed` is what
    was seen of the present round's experience, logged with each of its steps; `reward_weights` are
    by reward; `learn_reward` trains a reward model on a file of preferences, charges it to the
    ledger and gives its folder; `mismatch` is there while the policy is still the one that drew
    this experience; `trust_remote_code` holds for whatever models a plugin loads.
    """

    recipe: Recipe
    algorithm: Any
    plugins: RunPlugins
    model: Policy
    codec: Codec
    data: Data
    task: Any | None
    record: Record
    accelerator: Accelerator
    ui: UI
    learning_rate: float
    sampler: Sampler = field(default_factory=DefaultSampler)
    ledger: Ledger = field(default_factory=Ledger)
    step: int = 0
    round: int = 0
    state: dict[str, float] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)
    reward_weights: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None
    reference_cache: ReferenceCache | None = None
    learn_reward: Callable[[Path], Path] | None = None
    mismatch: Mismatch | None = None
    trust_remote_code: bool = False
    _charging: bool = True

    @property
    def hook(self) -> Any:
        return self.plugins.hook

    @property
    def device(self) -> torch.device:
        return self.model.device

    def policy(
        self,
        batch: Batch,
        *,
        entropy: bool = False,
        collision: bool = False,
        perturb: Perturb | None = None,
        values: bool = False,
        temperature: float = 1.0,
    ) -> Outputs:
        """Log-probs `[N, T]` of the completions under the model that is being trained.

        `perturb` changes the input embeddings of this pass; see `Policy`.
        """
        self._charge("update" if torch.is_grad_enabled() else "generation", batch)
        if values and self.model.values_apart:
            purpose = "update" if torch.is_grad_enabled() else "generation"
            self._charge(purpose, batch, HiddenState.OF_TOKEN)
        outputs = self.model(
            batch,
            entropy=entropy,
            log_sum_p2=collision,
            perturb=perturb,
            values=values,
            temperature=temperature,
        )
        if self.mismatch is not None and perturb is None and temperature == self.temperature:
            self.mismatch.see(batch, outputs.logprobs)
        return outputs

    def values(self, batch: Batch) -> Tensor:
        """The value head's number for the state before each token, `[N, T]`."""
        purpose = "update" if torch.is_grad_enabled() else "generation"
        self._charge(purpose, batch, HiddenState.OF_TOKEN)
        return self.model.values(batch)

    def reference(self, batch: Batch, *, temperature: float = 1.0) -> Outputs:
        """The same under the reference, without gradient: the model as it was before training,
        unless `move_reference` was called. What the run has in its cache is not computed."""
        unmoved = not self.model.reference_moved and temperature == 1.0
        if self.reference_cache is not None and unmoved:
            known = self.reference_cache.find(batch)
            if known is not None:
                return Outputs(known)
        self._charge("reference", batch)
        return self.model.reference(batch, temperature=temperature)

    def move_reference(self, mix: float = 1.0) -> None:
        """From now on the reference is mix * policy + (1 - mix) * reference, weight by weight."""
        self.model.move_reference(mix)

    def micro_batches(self, batch: Batch) -> list[Batch]:
        """What the loss hook is given of a batch, one after the other: parts of `micro_tokens`,
        or whole steps of `batch_size` where the algorithm says that its loss couples the rows."""
        if splits_of(self.algorithm):
            return batch.split(self.micro_tokens)
        size = self.recipe.batch_size
        return [
            batch.select(range(start, min(start + size, len(batch))))
            for start in range(0, len(batch), size)
        ]

    def scores(self, batch: Batch, *, per_token: bool = False) -> Tensor:
        """The score head's number for each completion `[N]`: that of its last token, the EOS.

        With `per_token` those of all its tokens, `[N, T]`, for a reward of every step.
        """
        self._charge("update" if torch.is_grad_enabled() else "reward", batch, HiddenState.OF_TOKEN)
        scores = self.model.scores(batch)
        return scores if per_token else batch.last(scores)

    def _charge(
        self, purpose: str, batch: Batch, states: HiddenState = HiddenState.PREDICTING
    ) -> None:
        if self._charging:
            flops = self.model.flops
            work = self.model.work(batch, states=states, reference=purpose == "reference")
            cost = flops.update(*work) if purpose == "update" else flops.forward(*work)
            self.ledger.spend(purpose, flops=cost, tokens=work.tokens)

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """Inside, forwards are not charged: evaluation is no part of what a method costs."""
        before, self._charging = self._charging, False
        try:
            yield
        finally:
            self._charging = before

    def share(self, rows: list[Any]) -> list[Any]:
        """This process's part of what belongs to the rows of a round."""
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def gather(self, values: list[Any]) -> list[Any]:
        """The inverse of `share`: every process's part, in the order of the rows. All call it."""
        shares = gather_object([values])
        return [part[i] for i in range(len(shares[0])) for part in shares if i < len(part)]

    def texts(self, batch: Batch) -> list[str]:
        """The completions of a batch as text, without the token that ends them."""
        return [
            self.codec.decode(tokens[:length].tolist())
            for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)
        ]

    def tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        """The values of `x [N, T]` in the mask, of all processes together, one-dimensional. All
        call it."""
        return torch.tensor([v for part in gather_object([x[mask].tolist()]) for v in part])

    def observe(self, numbers: Mapping[str, Tensor]) -> None:
        """Log with each step of this round the mean of each number over what all processes have of
        it, one-dimensional; NaN is left out. All call it, in the same order of names."""
        for name, values in numbers.items():
            everyone = [v for part in gather_object([values.tolist()]) for v in part]
            found = [value for value in everyone if not math.isnan(value)]
            if found:
                self.observed[name] = sum(found) / len(found)

    @property
    def temperature(self) -> float:
        """That of the distribution which completions are drawn from; greedily, the policy's own."""
        return self.recipe.temperature or 1.0

    @property
    def micro_tokens(self) -> int:
        """Most tokens in one forward pass. Small on a CPU: measured, 1024 was 17% faster than 8192
        (hidden 256, 4 layers) at a third of the memory; on zoo-tiny 8% slower."""
        return self.recipe.micro_tokens or (1024 if self.device.type == "cpu" else 8192)

    @cached_property
    def order(self) -> EpochOrder:
        """Which rows each round has."""
        return self.data.order(self.rows_per_round, self.recipe.seed)

    def held_out(self, share: SourceSize | None = None) -> Iterator[Batch]:
        """The held-out examples, or those of one source, in micro-batches, as an evaluation sees
        them."""
        examples = self.data.test[: self.recipe.eval_size]
        if share is not None:
            examples = examples[self.data.held_out_of(share)]
        examples = [example for example in examples if example.completions]
        for micro in self.micro_batches(collate(examples)) if examples else []:
            yield micro.to(self.device)

    @property
    def rows_per_round(self) -> int:
        rows = rounds_of(self.algorithm).rows
        if rows is None:
            return self.recipe.batch_size
        return len(self.data.train) if rows < 0 else rows

    def rows_of(self, index: int) -> int:
        """Rows that the round of that number learns from: its own, and those it has carried."""
        return self.rows_per_round * rounds_of(self.algorithm).learnt(index)

    def steps_of(self, index: int) -> int:
        """Optimizer steps in the round of that number, if it is of full size."""
        rounds = rounds_of(self.algorithm)
        rows = min(self.rows_per_round, len(self.data.train)) * rounds.learnt(index)
        return rounds.epochs * math.ceil(rows / self.recipe.batch_size)

    @cached_property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None when only a compute budget ends it."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        if self.recipe.budget is not None:
            return None
        rounds = math.ceil(self.recipe.epochs * len(self.data.train) / self.rows_per_round)
        return sum(map(self.steps_of, range(max(1, rounds))))

    def progress_at(self, step: float) -> float:
        """How much of the run is done, in [0, 1]: by steps or by compute, whichever is nearer."""
        shares = [0.0]
        if self.total_steps is not None:
            shares.append(step / max(self.total_steps, 1))
        if self.recipe.budget_flops is not None:
            # A reward model that was trained first is paid for, but it is no progress.
            first = self.ledger.flops["reward_training"]
            left = max(self.recipe.budget_flops - first, 1.0)
            shares.append((self.ledger.total_flops - first) / left)
        return min(max(shares), 1.0)

    @property
    def progress(self) -> float:
        return self.progress_at(self.step)

    def stop(self, reason: str) -> None:
        """End training after this step, as if it had been the last one."""
        self.stopped = reason
        self.record.facts["stopped"] = reason
        self.ui.note(f"stopped: {reason}")

    @property
    def done(self) -> bool:
        return self.stopped is not None or self.progress >= 1.0 or self.total_steps == 0

    def seed_for(self, *what: Any) -> int:
        """A seed for something that happens once in this run, from the run's seed and its name."""
        text = repr((self.recipe.seed, *what)).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")

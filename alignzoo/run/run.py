"""The run: the one object that every hook is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pluggy import PluginManager
from torch import Tensor

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch, collate
from alignzoo.data import TURN_REWARDS, Codec, Data, EpochOrder, SourceSize, episode_texts
from alignzoo.deprecated import RUN_ATTRIBUTES
from alignzoo.environments import Environment
from alignzoo.errors import RunFailed, warn_renamed
from alignzoo.ledger import Ledger
from alignzoo.policy import ModelSpec, Outputs, Policy, load_policy
from alignzoo.recipe import Recipe
from alignzoo.record import Record
from alignzoo.reserved import Names
from alignzoo.run.forwards import Forwards
from alignzoo.run.log import RoundLog
from alignzoo.run.schedule import Schedule
from alignzoo.run.state import PluginStates, State
from alignzoo.run.teacher import refuse_other_tokens
from alignzoo.run.world import World
from alignzoo.ui import UI


@dataclass(eq=False)
class Run:
    """A run in progress. Plugins read it, and get log-probs from it; the loop moves it on.

    `policy(batch)`, `reference(batch)` and, if the algorithm has the heads for it, `scores(batch)`
    and `values(batch)` are forward passes of `model`, charged to the ledger. `step` and `round`
    count optimizer steps and rounds done. `log_mean` logs numbers about the round in progress.

    Args:
        learning_rate: the peak.
        model_spec: how this run loads models: precision, device, trust in their code.
        reward_trainer: trains a reward model on a file of preferences, and returns its folder.
        reward_weights: by the name of the reward in the log.
        external_logprobs: True if the sampler's log-probs are not the trainer's.
        environment: that answers between the turns of a completion; see `alignzoo.environments`.
    """

    recipe: Recipe
    algorithm: Any
    plugins: PluginManager
    model: Policy
    codec: Codec
    data: Data
    task: Any | None
    record: Record
    world: World
    ui: UI
    learning_rate: float
    schedule: Schedule
    model_spec: ModelSpec
    reward_trainer: Callable[[Run, Path], Path] | None = None
    reward_weights: dict[str, float] = field(default_factory=dict)
    external_logprobs: bool = False
    environment: Environment | None = None

    def __post_init__(self) -> None:
        self.states = PluginStates()
        self._models: dict[tuple[str, bool], Policy] = {}
        self.forwards = Forwards(self.model, self.schedule.ledger)
        self.names = Names()  # of the numbers that are logged
        self.round_metrics = RoundLog(self.world, self.names)

    @property
    def hook(self) -> Any:
        """Return the hooks, each of which calls the plugins of this run; see `alignzoo.hooks`."""
        return self.plugins.hook

    def state_of(self, plugin: Any) -> State:
        """Return what a plugin carries from step to step: a dict of its own.

        It holds JSON values and tensors, also in lists and dicts, and is a part of every
        checkpoint. In a resumed run it is restored before `alignzoo_start`. A plugin asks for its
        own, `run.state_of(self)`; an object that is not registered in the run, such as a part of a
        plugin, has one by the name of its class.
        """
        for name, registered in self.plugins.list_name_plugin():
            if registered is plugin:
                return self.states.of(name)
        return self.states.of_unregistered(plugin)

    @property
    def state(self) -> dict[str, float]:
        """Deprecated: use `state_of(plugin)`, which is the plugin's own and takes tensors."""
        warn_renamed("run.state", "run.state_of(self)")
        return self.states.shared

    # Forward passes: see `Forwards`.

    def policy(self, batch: Batch, **options: Any) -> Outputs:
        """Return the log-probs `[N, T]` of a batch under the policy; see `Forwards.policy`."""
        return self.forwards.policy(batch, **options)

    def reference(self, batch: Batch, **options: Any) -> Outputs:
        """Return the log-probs `[N, T]` of a batch under the reference, without gradient."""
        return self.forwards.reference(batch, **options)

    def teacher(self, batch: Batch, **options: Any) -> Outputs:
        """Return the log-probs `[N, T]` of a batch under the teacher; see `Forwards.teacher`."""
        return self.forwards.teacher(batch, **options)

    def divergence(self, batch: Batch, *, beta: float, **options: Any) -> Outputs:
        """Return `policy(batch)` and the divergence from the teacher; see `Forwards.divergence`."""
        return self.forwards.divergence(batch, beta=beta, **options)

    def values(self, batch: Batch) -> Tensor:
        """Return the value of the state before each token, `[N, T]`."""
        return self.forwards.values(batch)

    def scores(self, batch: Batch, *, per_token: bool = False) -> Tensor:
        """Return the score of each completion, `[N]`, or of each token, `[N, T]`."""
        return self.forwards.scores(batch, per_token=per_token)

    def move_reference(self, mix: float = 1.0) -> None:
        """Move the reference to mix * policy + (1 - mix) * reference, weight by weight."""
        self.model.move_reference(mix)

    def load_model(
        self, model: str, *, four_bit: bool = False, same_tokens: bool = False
    ) -> Policy:
        """Load another model (a folder, a run, a name on the hub) as this run loads its own.

        Nothing in it is trainable, its passes are charged, and all who name it share one instance.
        Raise `BadInput` if it has changed since the run began, or with `same_tokens` if its token
        ids do not mean what this run's do.
        """
        key = (model, four_bit)
        if key not in self._models:
            loaded = load_policy(replace(self.model_spec, model=model, four_bit=four_bit))
            self.record.add_model(model, loaded.trained_on or loaded.fingerprint)
            loaded.charge_to(self.forwards.charge)
            self._models[key] = loaded
        found = self._models[key]
        if same_tokens:
            refuse_other_tokens(found, self.model, f"{model} is not that of {self.recipe.model}")
        return found

    def charge(self, purpose: str, **amounts: float) -> None:
        """Charge what a plugin spends outside of `model` and the models of `load_model`.

        Those charge their passes themselves. See `Ledger.spend`; nothing is charged inside
        `free_of_charge`, as in evaluations.
        """
        if not self.forwards.is_free:
            self.ledger.spend(purpose, **amounts)

    def free_of_charge(self) -> AbstractContextManager[None]:
        """Charge no forward pass inside the block, as for evaluations."""
        return self.forwards.purpose(None)

    def train_reward(self, pairs: Path) -> Path:
        """Train a reward model on a file of preferences, charge it, and return its folder.

        Raise `RunFailed` if this run cannot.
        """
        if self.reward_trainer is None:
            raise RunFailed("this run cannot train a reward model")
        return self.reward_trainer(self, pairs)

    # Progress: see `Schedule`.

    @property
    def ledger(self) -> Ledger:
        """Return what the run has spent."""
        return self.schedule.ledger

    @property
    def step(self) -> int:
        """Return the number of optimizer steps done."""
        return self.schedule.step

    @property
    def round(self) -> int:
        """Return the number of rounds done."""
        return self.schedule.round

    @property
    def total_steps(self) -> int | None:
        """Return the optimizer steps of the whole run; None if only a compute budget ends it.

        A schedule of a plugin's own is better a function of `progress`, which every run has.
        """
        return self.schedule.total_steps

    @property
    def progress(self) -> float:
        """Return the fraction of the run done so far, in [0, 1]: of its steps or of its budget.

        It never falls, and is the same in a resumed run.
        """
        return self.schedule.progress

    def seed_for(self, *what: Any) -> int:
        """Return a seed below 2^56 for something that happens once in this run, by its name."""
        return self.schedule.seed_for(*what)

    def stop(self, reason: str) -> None:
        """End training after this step, and record the reason."""
        self.schedule.stopped = reason
        self.record.set_fact("stopped", reason)
        self.ui.note(f"stopped: {reason}")

    # The data, and its batches.

    @cached_property
    def order(self) -> EpochOrder:
        """Return the order of the data, which gives the rows of each round."""
        return self.data.order(self.schedule.rows_per_round, self.recipe.seed)

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.model.device

    @property
    def accelerator(self) -> Accelerator:
        """Return the `Accelerator`, for trackers and launchers."""
        return self.world.accelerator

    @property
    def temperature(self) -> float:
        """Return the sampling temperature; 1 for greedy decoding."""
        return self.recipe.temperature or 1.0

    @property
    def micro_tokens(self) -> int:
        """Return the most tokens in one forward pass."""
        # Lowered to fit the memory; a resumed run rounds as before only with the same number.
        lowered: int | None = self.record.facts.get("micro_tokens")
        return lowered or self.recipe.micro_tokens_on(self.device.type)

    def micro_batches(self, batch: Batch) -> list[Batch]:
        """Split a batch for the loss hook into parts of at most `micro_tokens` tokens.

        If the loss of the algorithm couples rows, split it into whole steps of `batch_size`.
        """
        if not Traits.of(self.algorithm).couples_rows:
            return batch.split(self.micro_tokens)
        size = self.recipe.batch_size
        return [
            batch.select(range(start, min(start + size, len(batch))))
            for start in range(0, len(batch), size)
        ]

    def held_out(self, source: SourceSize | None = None) -> Iterator[Batch]:
        """Yield the held-out examples, or those of one source, in micro-batches."""
        examples = self.data.test[: self.recipe.eval_size]
        if source is not None:
            examples = examples[self.data.held_out_of(source)]
        examples = [example for example in examples if example.completions]
        for micro in self.micro_batches(collate(examples)) if examples else []:
            yield micro.to(self.device)

    def texts(self, batch: Batch) -> list[str]:
        """Return the N completions of a batch as text, without the token that ends them."""
        if TURN_REWARDS in batch.columns:
            return episode_texts(self.codec, batch)
        return [self.codec.decode(ids) for ids in batch.completions()]

    def log_mean(self, values: Mapping[str, Tensor]) -> None:
        """Log the mean of each vector `[n]` over all processes with each step of this round.

        NaN is ignored. All processes call it with the same names in the same order.
        """
        self.round_metrics.add_means(values)

    def shard(self, rows: list[Any]) -> list[Any]:
        """Return this process's part of what belongs to the rows of a round."""
        return self.world.shard(rows)

    def gather(self, values: list[Any]) -> list[Any]:
        """Return the parts of all processes in the order of the rows: the inverse of `shard`."""
        return self.world.gather(values)

    def gather_masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the values of `x [N, T]` in `mask [N, T]` of all processes as one vector."""
        return self.world.gather_masked(x, mask)

    def __getattr__(self, name: str) -> Any:
        """Return what a deprecated name stands for."""
        if name not in RUN_ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_renamed(f"run.{name}", f"run.{RUN_ATTRIBUTES[name]}")
        return attrgetter(RUN_ATTRIBUTES[name])(self)

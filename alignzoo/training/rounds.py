"""What a round learns from, and how a run is left between two of its steps and taken up there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object

from alignzoo.algorithm import rounds_of
from alignzoo.batch import Batch
from alignzoo.run.run import Run
from alignzoo.training import checkpoint


@dataclass
class Experience:
    """What a round learns from: its batch, the step at which it began, and how many of its
    mini-batches are done, so that a long round can be left and taken up in its middle."""

    batch: Batch
    began: int
    done: int = 0

    def rest(self, run: Run) -> Iterator[Batch]:
        """The mini-batches still to be learnt: the batch in optimizer steps of `batch_size` rows
        of the round, shuffled anew for each pass over it. One may be empty."""
        each = self.steps_per_epoch(run)
        for index in range(self.done, each * rounds_of(run.algorithm).epochs):
            epoch, place = divmod(index, each)
            if index > 0:
                # The first one goes on from where sampling left the generators.
                torch.manual_seed(run.seed_for("update", run.step, run.accelerator.process_index))
            if each == 1:
                yield self.batch
                continue
            generator = torch.Generator().manual_seed(run.seed_for("minibatches", run.round, epoch))
            order = torch.randperm(len(self.batch), generator=generator).tolist()
            yield self.batch.select(order[self.first(run, place) : self.first(run, place + 1)])

    def more(self, run: Run) -> bool:
        """Whether mini-batches are left."""
        return self.done < self.steps_per_epoch(run) * rounds_of(run.algorithm).epochs

    def steps_per_epoch(self, run: Run) -> int:
        """By the rows of the round, so that all processes agree, whatever each has kept of them."""
        return math.ceil(run.rows_of(run.round) / run.recipe.batch_size)

    def first(self, run: Run, place: int) -> int:
        """Where that mini-batch begins among the groups: its share of them is its share of the
        rows, of which a process may have a part, or a sampler have kept one."""
        rows = run.rows_of(run.round)
        return min(place * run.recipe.batch_size, rows) * len(self.batch) // rows


def save(run: Run, optimizer: torch.optim.Optimizer, experience: Experience | None = None) -> None:
    """A checkpoint between two rounds, or with their `experience` in the middle of one."""
    state = {"round": run.round, "plugins": run.state}
    batches = []
    if experience is not None:
        batches = gather_object([experience.batch])  # every process has a part of it
        state["experience"] = {
            "began": experience.began,
            "done": experience.done,
            "observed": run.observed,
        }
    if not run.accelerator.is_main_process:
        return
    names = {parameter: name for name, parameter in run.model.parameters()}
    checkpoint.save(
        run.record.checkpoints,
        run.step,
        run.model.state(),
        checkpoint.optimizer_tensors(optimizer, names),
        {**state, "ledger": run.ledger.as_dict()},
        batches,
    )
    run.record.set_status("running", run.ledger)


def resume(run: Run, optimizer: torch.optim.Optimizer) -> Experience | None:
    """Take up the last complete checkpoint, and forget what was logged after it.

    Gives back the experience of a round that was left in its middle.
    """
    path = checkpoint.latest(run.record.checkpoints)
    if path is None:
        run.record.rewind(0)
        return None
    weights, moments, state = checkpoint.read(path)
    run.model.load_state(weights)
    names = {parameter: name for name, parameter in run.model.parameters()}
    checkpoint.restore_optimizer(optimizer, moments, names)
    run.step, run.round, run.state = state["step"], state["round"], state["plugins"]
    run.ledger.restore(state["ledger"])
    run.record.rewind(run.step)
    run.ui.note(f"resumed at step {run.step}")
    if "experience" not in state:
        return None
    left = state["experience"]
    run.observed = left["observed"]
    batch = checkpoint.read_batch(path, run.accelerator.process_index)
    return Experience(batch, left["began"], left["done"])

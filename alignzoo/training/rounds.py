"""A round in progress, and how a run is left between two of its steps and resumed there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from alignzoo.batch import Batch
from alignzoo.run import Run
from alignzoo.training import checkpoint


@dataclass
class Round:
    """What a round learns from: its batch, the step at which it began, and how many of its
    mini-batches are done, so that a long round can be left and resumed in its middle."""

    batch: Batch
    began: int
    done: int = 0

    def remaining(self, run: Run) -> Iterator[Batch]:
        """Yield the mini-batches not learned from yet, shuffled again for each pass.

        Each is an optimizer step of `batch_size` rows of the round; one may be empty.
        """
        steps = self.steps_per_pass(run)
        for index in range(self.done, steps * run.schedule.rounds.iterations):
            iteration, place = divmod(index, steps)
            if index > 0:
                # The first one goes on from where sampling left the generators.
                torch.manual_seed(run.seed_for("update", run.step, run.world.rank))
            if steps == 1:
                yield self.batch
                continue
            seed = run.seed_for("minibatches", run.round, iteration)
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self.batch), generator=generator).tolist()
            yield self.batch.select(order[self.start(run, place) : self.start(run, place + 1)])

    def has_more(self, run: Run) -> bool:
        """Return whether mini-batches are left."""
        return self.done < self.steps_per_pass(run) * run.schedule.rounds.iterations

    def steps_per_pass(self, run: Run) -> int:
        """Return the steps of one pass: by the rows of the round, so that all processes agree
        whatever each has kept of them."""
        return math.ceil(run.schedule.rows_in(run.round) / run.recipe.batch_size)

    def start(self, run: Run, place: int) -> int:
        """Return the first group of a mini-batch.

        Its fraction of the groups is its fraction of the rows: a process may have a part of the
        rows, and a sampler may have kept a part of them.
        """
        rows = run.schedule.rows_in(run.round)
        return min(place * run.recipe.batch_size, rows) * len(self.batch) // rows


def save_checkpoint(
    run: Run, optimizer: torch.optim.Optimizer, current: Round | None = None
) -> None:
    """Write a checkpoint between two rounds, or in the middle of the `current` one."""
    state = {"round": run.round, "plugins": run.state}
    batches = []
    if current is not None:
        batches = run.world.gather_each(current.batch)  # every process has a part of it
        state["current"] = {
            "began": current.began,
            "done": current.done,
            "metrics": run.round_metrics.numbers,
        }
    if not run.world.is_main:
        return
    names = {parameter: name for name, parameter in run.model.parameters()}
    checkpoint.write_checkpoint(
        run.record.checkpoints,
        run.step,
        run.model.state(),
        checkpoint.flatten_optimizer(optimizer, names),
        {**state, "ledger": run.ledger.as_dict()},
        batches,
    )
    run.record.set_status("running", run.ledger)


def resume_run(run: Run, optimizer: torch.optim.Optimizer) -> Round | None:
    """Restore the last complete checkpoint, and forget what was logged after it.

    Return the round that was left in its middle, if there is one.
    """
    path = checkpoint.find_checkpoint(run.record.checkpoints)
    if path is None:
        run.record.rewind(0)
        return None
    weights, moments, state = checkpoint.read_checkpoint(path)
    run.model.load_state(weights)
    names = {parameter: name for name, parameter in run.model.parameters()}
    checkpoint.restore_optimizer(optimizer, moments, names)
    run.schedule.step, run.schedule.round = state["step"], state["round"]
    run.state = state["plugins"]
    run.ledger.restore(state["ledger"])
    run.record.rewind(run.step)
    run.ui.note(f"resumed at step {run.step}")
    if "current" not in state:
        return None
    left = state["current"]
    run.round_metrics.add(left["metrics"])
    batch = checkpoint.read_batch(path, run.world.rank)
    return Round(batch, left["began"], left["done"])

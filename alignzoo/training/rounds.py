"""A round in progress, and checkpoints between two of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.run import Run
from alignzoo.training import checkpoint
from alignzoo.training.optimizer import flatten_optimizer, restore_optimizer


@dataclass
class Round:
    """A round in progress, which a checkpoint can save and resume in the middle.

    Args:
        batch: what the round learns from; of several processes, each has a part of it.
        began: number of optimizer steps of the run before the round.
        done: number of mini-batches done, over all passes.
    """

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
                # The first mini-batch continues with the generators as sampling left them.
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
        """Return the number of steps of one pass.

        It depends on the rows of the round alone, so that all processes agree on it even if they
        have kept different numbers of them.
        """
        return math.ceil(run.schedule.rows_in(run.round) / run.recipe.batch_size)

    def start(self, run: Run, place: int) -> int:
        """Return the index of the first group of a mini-batch.

        A mini-batch takes the same fraction of the groups as of the rows: a process has only a part
        of the rows, and a sampler may have kept only some of them.
        """
        rows = run.schedule.rows_in(run.round)
        return min(place * run.recipe.batch_size, rows) * len(self.batch) // rows


def save_checkpoint(
    run: Run,
    optimizer: torch.optim.Optimizer,
    current: Round | None = None,
    *,
    evaluate: bool = False,
) -> None:
    """Write a checkpoint between two rounds, or in the middle of the `current` one.

    With `evaluate`, an evaluation is due before the next round. All processes call it; the main
    one writes.
    """
    state = {"round": run.round, "plugins": run.state, "stopped": run.schedule.stopped}
    state["evaluate"] = evaluate
    batches = []
    if current is not None:
        batches = run.world.gather_each(current.batch)  # every process has a part of it
        state["current"] = {
            "began": current.began,
            "done": current.done,
            "processes": run.world.size,
            "metrics": run.round_metrics.numbers,
        }
    weights = run.model.state()
    check_weights(run, weights)
    if not run.world.is_main:
        return
    run.record.flush()
    names = {parameter: name for name, parameter in run.model.parameters()}
    checkpoint.write_checkpoint(
        run.record.checkpoints,
        run.step,
        weights,
        flatten_optimizer(optimizer, names),
        {**state, "ledger": run.ledger.as_dict()},
        batches,
    )
    run.record.set_status("running", run.ledger)


def check_weights(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Raise `RunFailed` if a weight is not finite: no checkpoint and no result has such."""
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise RunFailed(
                f"the weights are not finite after step {run.step}: {name}",
                hint="try a lower --learning-rate; the last checkpoint is intact",
            )


def choose_checkpoint(run: Run) -> Path | None:
    """Return the newest intact checkpoint, None if the run has none yet.

    Delete damaged ones that are newer, and say so. Raise `BadInput` if all are damaged.
    """
    damages: list[str] = []
    chosen = None
    if run.world.is_main:
        for path in checkpoint.find_checkpoints(run.record.checkpoints):
            damage = checkpoint.find_damage(path)
            if damage is None:
                chosen = path
                break
            damages.append(f"{path.name}: {damage}")
    # One process decides: all of them take the same checkpoint.
    chosen, damages = run.world.gather_each((chosen, damages))[0]
    if damages and chosen is None:
        raise BadInput(
            "no checkpoint is intact: " + "; ".join(damages),
            where=str(run.record.checkpoints),
            hint="delete this folder, and the run resumes from its first step",
        )
    if chosen is None:
        return None
    for damage in damages:
        run.ui.note(f"checkpoint {damage}; taking {chosen.name} instead")
    if run.world.is_main:
        checkpoint.delete_others(chosen)
    return chosen


def resume_run(run: Run, optimizer: torch.optim.Optimizer) -> tuple[Round | None, bool]:
    """Restore the last intact checkpoint if there is one, and delete what was logged after it.

    Return the round in whose middle it was written, None if it was written between rounds, and
    whether an evaluation is due first.
    """
    path = choose_checkpoint(run)
    if path is None:
        run.record.rewind(0)
        return None, False
    weights, moments, state = checkpoint.read_checkpoint(path)
    run.model.load_state(weights)
    names = {parameter: name for name, parameter in run.model.parameters()}
    restore_optimizer(optimizer, moments, names)
    run.schedule.step, run.schedule.round = state["step"], state["round"]
    run.state = state["plugins"]
    run.schedule.stopped = state.get("stopped")
    run.ledger.restore(state["ledger"])
    run.record.rewind(run.step)
    run.ui.note(f"resumed at step {run.step}")
    if "current" not in state:
        return None, state["evaluate"]
    left = state["current"]
    if left["processes"] != run.world.size:
        raise BadInput(
            f"this checkpoint is of the middle of a round of {left['processes']} processes",
            where=str(path),
            hint="resume the run with as many",
        )
    run.round_metrics.add(left["metrics"])
    batch = checkpoint.read_batch(path, run.world.rank)
    return Round(batch, left["began"], left["done"]), False

"""The micro-batches of a step: each process has its own, and with split weights equally many.

A forward pass of weights that are split over the processes is a collective call. A process that has
fewer micro-batches than another goes along: it repeats one, with a loss times zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from alignzoo.batch import Batch
from alignzoo.loss import Loss
from alignzoo.run import Run


@dataclass(frozen=True)
class MicroBatch:
    """A part of a step's batch; `counts` is False if the process only goes along with others."""

    batch: Batch
    counts: bool = True
    is_last: bool = False


def agree_on_micro_batches(run: Run, batch: Batch) -> list[MicroBatch]:
    """Return the micro-batches of this process's batch, as many as the others have if they must."""
    own = [MicroBatch(micro) for micro in run.micro_batches(batch)] if len(batch) else []
    if run.model.sharding.active:
        own += [MicroBatch(micro, counts=False) for micro in choose_repeated(run, own)]
    return [replace(micro, is_last=n == len(own)) for n, micro in enumerate(own, 1)]


def choose_repeated(run: Run, own: list[MicroBatch]) -> list[Batch]:
    """Return what to repeat to have as many micro-batches as the process with the most.

    It is the smallest of its own, or of another process if it has none.
    """
    counts = run.world.gather_each(len(own))
    smallest = min((micro.batch for micro in own), key=lambda x: x.tokens.numel(), default=None)
    if not all(counts):
        smallest = next((x for x in run.world.gather_each(smallest) if x is not None), None)
    return [smallest] * (max(counts) - len(own)) if smallest is not None else []


def compute_loss(run: Run, micro: MicroBatch) -> Loss:
    """Return the loss of a micro-batch; zero, uncounted and free of charge if it does not count."""
    batch = micro.batch.to(run.device)
    if micro.counts:
        with run.forwards.purpose("update"):
            loss: Loss = run.hook.alignzoo_loss(run=run, batch=batch)
        return loss
    with run.free_of_charge():
        loss = run.hook.alignzoo_loss(run=run, batch=batch)
    return Loss(loss.sum * 0.0, torch.zeros_like(loss.count))

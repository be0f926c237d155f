"""Laws on hooks as functions: same input, same output, and nothing else changed."""

from __future__ import annotations

import math

import torch

from alignzoo.testing.laws import Broken, law
from alignzoo.testing.stage import Stage, clone
from alignzoo.testing.subject import global_generators
from alignzoo.testing.sums import compare_updates, cut


@law(
    "algorithms",
    "batch",
    says="the batch is not changed in place",
    cause="an in-place operation (+=, clamp_, masked_fill_) on a column or a mask",
    hook="alignzoo_loss",
)
def check_batch(stage: Stage) -> None:
    """Compare a batch with a copy made before the loss."""
    batch = clone(stage.batch)
    with stage.forwards.recorded():
        stage.run.hook.alignzoo_loss(run=stage.run, batch=batch)
    kept = stage.batch
    for name in ("prompts", "tokens", "lengths", "mask", "group"):
        if not torch.equal(getattr(batch, name), getattr(kept, name)):
            raise Broken(f"the loss changes batch.{name}")
    for name, column in kept.columns.items():
        if name not in batch.columns:
            raise Broken(f"the loss removes the column {name!r}")
        if not torch.equal(batch[name].nan_to_num(), column.nan_to_num()):
            raise Broken(f"the loss changes the column {name!r}")


@law(
    "algorithms",
    "same seed",
    says="the same seed gives the same batch and the same loss, whatever the process has done",
    cause="random numbers of `random`, numpy or time; torch's are seeded in each round, and "
    "`run.seed_for(name)` gives a seed",
    hook="alignzoo_sample",
)
def check_same_seed(stage: Stage) -> None:
    """Compare two runs whose global generators differ."""
    found = []
    for seed in (1, 2):
        with global_generators(seed):
            found.append(stage.vary().measure())
    compare_updates(found[0], found[1], "another state of the global generators")


@law(
    "algorithms",
    "repeated call",
    says="a second call of the loss on the same batch gives the same loss",
    cause="a counter, a moving average or a cache on `self` that the loss reads; keep it in the "
    "state of the run, and move it once in a step",
    hook="alignzoo_loss",
)
def check_repeated(stage: Stage) -> None:
    """Call the loss twice."""
    compare_updates(stage.measure(), stage.measure(), "a second call")


@law(
    "algorithms",
    "metrics",
    says="metrics are sums with counts: cutting the batch does not change their means",
    cause="a mean of means, a maximum, or a metric that is present in only some micro-batches",
    hook="alignzoo_loss",
)
def check_metrics(stage: Stage) -> None:
    """Compare the metrics of the whole batch with those of its parts."""
    whole = stage.measure().totals.means()
    for name, value in whole.items():
        if not math.isfinite(value):
            raise Broken(f"metric {name!r} is {value}")
    parts = stage.measure(cut(stage.batch, (1, 2, 5))).totals.means()
    if whole.keys() != parts.keys():
        names = ", ".join(sorted(whole.keys() ^ parts.keys()))
        raise Broken(f"cutting the batch changes which metrics there are: {names}")
    for name, value in whole.items():
        if abs(value - parts[name]) > 1e-5 * max(1.0, abs(value)):
            raise Broken(f"metric {name!r} is {value:.6g} of the batch, {parts[name]:.6g} of parts")

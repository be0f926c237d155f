"""Laws on gradients: what the loss says and what it moves are the same thing."""

from __future__ import annotations

import random
from dataclasses import replace

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch
from alignzoo.testing.laws import Broken, law
from alignzoo.testing.stage import Stage
from alignzoo.testing.table import Place

STEP = 1e-4  # nats, of a difference quotient
GRADIENT_TOLERANCE = 2e-3  # of the largest gradient; columns of rewards and advantages are float32


@law(
    "algorithms",
    "finite differences",
    says="the gradient is that of the loss",
    cause="a detached factor, a metric in place of the loss, or a value that was computed under "
    "no_grad; state the exception if the paper has a stop-gradient",
    hook="alignzoo_loss",
)
def check_differences(stage: Stage) -> None:
    """Compare gradients with difference quotients in float64, for single log-probs."""
    for moved in (0.0, 0.1):
        table = replace(stage.table, moved=moved)
        gradient = stage.measure(table=table).gradient
        largest = max(map(abs, gradient.values()), default=0.0)
        for place in choose_places(gradient):
            up, down = (
                stage.measure(table=replace(table, shifts={place: sign * STEP})).totals.sums["loss"]
                for sign in (1, -1)
            )
            quotient = (up - down) / (2 * STEP)
            if abs(quotient - gradient[place]) > GRADIENT_TOLERANCE * largest:
                raise Broken(
                    f"the loss changes by {quotient:.4g} per nat at token {place.position} of a "
                    f"completion, and its gradient there is {gradient[place]:.4g}"
                )


def choose_places(gradient: dict[Place, float]) -> list[Place]:
    """Return the places of the two largest gradients and of six others."""
    by_size = sorted(gradient, key=lambda place: -abs(gradient[place]))
    rest = by_size[2:]
    return by_size[:2] + random.Random(0).sample(rest, min(6, len(rest)))


@law(
    "algorithms",
    "gradient",
    says="the loss has a gradient in every completion that it counts",
    cause="a loss made of stored or detached numbers, a group whose advantages are all 0, or a "
    "comparison of a tensor with itself",
    hook="alignzoo_loss",
)
def check_some_gradient(stage: Stage) -> None:
    """Check that some gradient is not 0, and that it depends on the policy."""
    measured = stage.measure(table=replace(stage.table, moved=0.1))
    if not measured.totals.counts["loss"]:
        raise Broken("the loss counts nothing")
    if not any(measured.gradient.values()):
        raise Broken("the gradient of every log-prob is 0")


@law(
    "algorithms",
    "reference",
    says="the reference stays what it was",
    cause="run.move_reference() in a hook of every step",
    hook="alignzoo_round_end",
)
def check_reference(stage: Stage) -> None:
    """Check that no hook of a step or a round moves the reference."""
    stage = stage.vary()
    stage.measure()
    run = stage.run
    metrics = dict(stage.measure().totals.means())
    run.schedule.step = 1
    run.hook.alignzoo_step(run=run, step=1, metrics=metrics)
    run.hook.alignzoo_round_end(run=run, index=0)
    if run.model.reference_moved:
        raise Broken("the reference has moved after the first round")


@law(
    "algorithms",
    "stored log-probs",
    says="the reference and the log-probs of the sampler have an effect if the plugin needs them",
    cause="a ratio of the policy to itself, or a reference that is subtracted from itself",
    hook="alignzoo_loss",
)
def check_stored(stage: Stage) -> None:
    """Check that another reference gives another gradient if the algorithm needs one."""
    run = stage.run
    moved = replace(stage.table, moved=0.1)
    first = stage.measure(table=moved)
    if "logprobs" in stage.batch.columns and run.schedule.steps_in(0) > 1:
        batches = [shift_column(stage.batch, name) for name in stored_columns(stage.batch)]
        if all(stage.measure([b], table=moved).gradient == first.gradient for b in batches):
            raise Broken("the log-probs that the tokens were drawn with have no effect")
    if Traits.of(run.algorithm).needs.reference:
        other = stage.vary(table=replace(stage.table, reference_shift=0.4))
        second = other.measure(table=replace(other.table, moved=0.1))
        if (second.loss, second.gradient) == (first.loss, first.gradient):
            raise Broken("another reference gives the same loss and gradient")


def stored_columns(batch: Batch) -> list[str]:
    """Return the names of columns that may hold log-probs."""
    return [
        name
        for name, column in batch.columns.items()
        if column.is_floating_point() and not name.startswith(("reward", "advantages"))
    ]


def shift_column(batch: Batch, name: str) -> Batch:
    """Return a batch with 0.05 added to a column."""
    return replace(batch, columns={**batch.columns, name: batch[name] + 0.05})

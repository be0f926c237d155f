"""Laws on sums and counts: how rows are cut into batches has no effect on the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import pad

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch
from alignzoo.testing.laws import Broken, NotApplicable, law, worst_difference
from alignzoo.testing.processes import measure_in_processes
from alignzoo.testing.stage import Measured, Stage

UPDATE_TOLERANCE = 1e-6
CUTS = ((8,), (1,) * 8, (4, 4), (2, 2, 2, 2), (3, 5))


def compare_updates(one: Measured, other: Measured, what: str) -> None:
    """Raise `Broken` if two updates or two losses differ by more than rounding."""
    apart, place = worst_difference(one.update, other.update)
    if apart > UPDATE_TOLERANCE:
        raise Broken(
            f"{what} changes the gradient of token {place.position} of a completion by {apart:.1%} "
            "of the largest one"
        )
    if abs(one.loss - other.loss) > UPDATE_TOLERANCE * max(1.0, abs(one.loss)):
        raise Broken(f"{what} changes the loss from {one.loss:.6g} to {other.loss:.6g}")


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Cut a batch into parts in these proportions."""
    total, parts, start, taken = sum(sizes), [], 0, 0
    for size in sizes:
        taken += size
        end = round(len(batch) * taken / total)
        if end > start:
            parts.append(batch.select(range(start, end)))
        start = end
    return parts


@law(
    "algorithms",
    "micro-batches",
    says="1 x 8, 8 x 1, 2 x 4 and 3 + 5 micro-batches are the same update",
    cause="a mean over the micro-batch instead of a sum and a count, or a number of the whole "
    "batch that is computed from the micro-batch",
    hook="alignzoo_loss",
)
def check_micro_batches(stage: Stage) -> None:
    """Compare updates from the same rows in different micro-batches."""
    if Traits.of(stage.run.algorithm).couples_rows:
        raise NotApplicable("the loss couples rows, so that a step is one forward pass")
    for sizes in CUTS:
        parts = stage.measure(cut(stage.batch, sizes))
        compare_updates(stage.measure(), parts, f"cutting the batch into {len(sizes)} parts")


@law(
    "algorithms",
    "order of rows",
    says="the order of the rows in a batch has no effect",
    cause="a row that is compared with its neighbour, or a column in another order than the batch",
    hook="alignzoo_loss",
)
def check_order(stage: Stage) -> None:
    """Compare the update with that of the rows in another order."""
    order = list(range(len(stage.batch)))
    turned = stage.batch.select(order[3:] + order[2::-1])
    compare_updates(stage.measure(), stage.measure([turned]), "another order of the rows")


@law(
    "algorithms",
    "padding",
    says="padding has no effect: its width, its token ids, and what columns hold there",
    cause="a sum or a mean over [N, T] without the mask, or a division by the width",
    hook="alignzoo_loss",
)
def check_padding(stage: Stage) -> None:
    """Compare the update with that of a batch that is padded more, with other ids."""
    for token in (0, 7):
        wider = widen(stage.batch, token)
        compare_updates(stage.measure(), stage.measure([wider]), "more padding")


def widen(batch: Batch, token: int) -> Batch:
    """Return a batch with three more cells of padding, and with odd values in all of its padding.

    Prompts get two more.
    """
    tokens = pad(batch.tokens, (0, 3), value=token)
    unused = torch.arange(tokens.shape[1]) >= batch.lengths[:, None]
    columns = {}
    for name, column in batch.columns.items():
        if column.dim() == 2:
            column = pad(column, (0, 3))
            if column.is_floating_point():
                column = column.masked_fill(unused, 1.25)
        columns[name] = column
    return replace(
        batch,
        prompts=pad(batch.prompts, (0, 2), value=token),
        tokens=tokens.masked_fill(unused, token),
        mask=pad(batch.mask, (0, 3)),
        columns=columns,
    )


@law(
    "algorithms",
    "processes",
    says="two processes take the same step as one",
    cause="a number of the whole batch that is computed from this process's part of it; "
    "`run.gather` collects it",
    hook="alignzoo_sample",
)
def check_two_processes(stage: Stage) -> None:
    """Compare the update with that of two processes, which have every other row each."""
    if Traits.of(stage.run.algorithm).couples_rows:
        raise NotApplicable("the loss couples rows, so that it runs in one process")
    one, two = stage.measure(), measure_in_processes(stage, 2)
    if one.gradient.keys() != two.gradient.keys():
        raise NotApplicable("each process draws completions of its own")
    compare_updates(one, two, "a second process")

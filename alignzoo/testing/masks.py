"""Laws on masks: the tokens in the mask count, each once, and nothing else does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch

from alignzoo.batch import Batch
from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.stage import Stage, clone
from alignzoo.testing.sums import compare_updates
from alignzoo.testing.table import Place


@law(
    "algorithms",
    "masked tokens",
    says="a token that the mask leaves out has no effect and no gradient",
    cause="a sum over [N, T] or over `lengths` in place of `batch.total`, or a mask made from "
    "token ids",
    hook="alignzoo_loss",
)
def check_masked(stage: Stage) -> None:
    """Leave a token out of every second completion, and change its log-prob."""
    batch, hidden = hide_tokens(stage)
    first = stage.measure([batch])
    moved = {place: first.gradient.get(place, 0.0) for place in hidden}
    worst = max(hidden, key=lambda place: abs(moved[place]))
    if moved[worst]:
        raise Broken(
            f"token {worst.position} of a completion is masked and has the gradient "
            f"{moved[worst]:.3g}"
        )
    shifts = dict.fromkeys(hidden, 0.7)
    second = stage.measure([batch], table=replace(stage.table, shifts=shifts))
    compare_updates(first, second, "another log-prob of masked tokens")


def hide_tokens(stage: Stage) -> tuple[Batch, list[Place]]:
    """Return the batch with a token of every second completion left out, and the places of these.

    Only a completion that occurs once is chosen, so that a place is one cell.
    """
    batch = clone(stage.batch)
    places = stage.forwards.table.places(batch)
    counts: dict[tuple[int, ...], int] = defaultdict(int)
    for row in places:
        counts[row[0].completion] += 1
    hidden = []
    for n, row in enumerate(places):
        if n % 2 == 0 and len(row) > 2 and counts[row[0].completion] == 1:
            batch.mask[n, 1] = False
            hidden.append(row[1])
    if not hidden:
        raise NotApplicable("no completion has a token to leave out")
    return batch, hidden


@law(
    "algorithms",
    "token ids",
    says="a token inside a completion may be the pad or the end token and still counts",
    cause="a mask made from ids: tokens != pad, or everything up to the first EOS",
    hook="alignzoo_loss",
)
def check_ids(stage: Stage) -> None:
    """Rename tokens inside completions to the ids of the pad and the end token."""
    tokenizer = stage.run.model.tokenizer
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, *stage.run.codec.stop_ids} - {None}
    first = stage.measure()
    for special_id in special:
        batch = clone(stage.batch)
        inside = torch.arange(batch.tokens.shape[1])[None] < batch.lengths[:, None] - 1
        ids = batch.tokens[inside].tolist()
        usual = [i for i in set(ids) if i not in special]
        if special_id in ids or not usual:
            continue
        chosen = max(usual, key=ids.count)
        batch.tokens[inside & (batch.tokens == chosen)] = special_id
        table = replace(stage.table, renamed={special_id: chosen})
        compare_updates(
            first, stage.measure([batch], table=table), f"the id {special_id} inside a completion"
        )


@law(
    "algorithms",
    "every token",
    says="the first and the last token of a completion count as much as those between",
    cause="logits and labels shifted twice or not at all, or an EOS that is cut off or counted "
    "twice",
    hook="alignzoo_loss",
)
def check_every_token(stage: Stage) -> None:
    """Check the gradient at both ends of completions against that in the middle."""
    gradient = stage.measure().gradient
    sums: dict[str, list[float]] = defaultdict(list)
    for place, value in gradient.items():
        last = len(place.completion) - 1
        if last < 2:
            continue
        part = {0: "first", last: "last"}.get(place.position, "middle")
        sums[part].append(abs(value))
    means = {part: sum(values) / len(values) for part, values in sums.items()}
    if not means.get("middle"):
        raise NotApplicable("the loss has no gradient inside completions")
    for part in ("first", "last"):
        share = means[part] / means["middle"]
        if not 0.4 < share < 1.8:
            raise Broken(
                f"the gradient of the {part} token of a completion is {share:.2f} times that of "
                "the tokens between"
            )

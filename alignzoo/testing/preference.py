"""Laws on directions: which completions a step makes likelier."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch
from alignzoo.data import Demonstrations, Feedback, Preferences, Prompts, Text
from alignzoo.testing.laws import Broken, NotApplicable, law, worst_difference
from alignzoo.testing.stage import Measured, Stage, usual_score

NOTHING = 1e-9


def gradient_of_completions(stage: Stage, batch: Batch, gradient: dict[Any, float]) -> list[float]:
    """Return the sum of the gradient over the tokens of each completion, `[N]`."""
    return [
        math.fsum(gradient.get(place, 0.0) for place in places)
        for places in stage.forwards.table.places(batch)
    ]


@law(
    "algorithms",
    "direction",
    says="a step makes what is better likelier: a demonstration, the chosen side, a good label, "
    "the higher reward, or what a teacher finds likelier",
    cause="a sign, chosen and rejected swapped, or advantages that are assigned to other rows",
    hook="alignzoo_loss",
)
def check_direction(stage: Stage) -> None:
    """Check the sign of the gradient of each completion, at the reference."""
    stage = stage.vary(table=replace(stage.table, apart=0.02))
    batch, measured = stage.batch, stage.measure()
    slopes = gradient_of_completions(stage, batch, measured.gradient)
    view = stage.run.algorithm.data
    if Traits.of(stage.run.algorithm).needs.teacher:
        check_approach(stage, measured)
    elif view is Preferences:
        check_pairs(batch, slopes)
    elif view is Feedback:
        check_labels(batch, slopes)
    elif view is Prompts:
        check_rise(batch, slopes)
    elif view is Text or issubclass(view, Demonstrations):
        shown = [slope for slope, first in zip(slopes, first_of_group(batch), strict=True) if first]
        if max(shown) > NOTHING or min(shown) >= 0:
            raise Broken("a demonstration becomes less likely, or none becomes likelier")
    else:
        raise NotApplicable(f"rows of view {view.name!r} have no better side")


def first_of_group(batch: Batch) -> list[bool]:
    """Return whether each completion is the first of its group."""
    groups = batch.group.tolist()
    return [n == 0 or groups[n - 1] != group for n, group in enumerate(groups)]


def check_approach(stage: Stage, measured: Measured) -> None:
    """Raise `Broken` unless the loss falls on the way from the policy to the teacher."""
    table = stage.forwards.table
    slope = math.fsum(
        gradient * (table.teacher(place) - table.policy(place))
        for place, gradient in measured.gradient.items()
    )
    if slope > -NOTHING:
        raise Broken(f"a step does not move to the teacher: there, the loss rises by {slope:.3g}")


def check_pairs(batch: Batch, slopes: list[float]) -> None:
    """Raise `Broken` unless chosen completions rise against rejected ones, and do not fall."""
    pairs = batch.grouped(slopes)
    if not any(rejected for _, rejected in pairs):
        raise Broken("no rejected completion has a gradient")
    for chosen, rejected in pairs:
        if chosen > NOTHING:
            raise Broken(f"a chosen completion becomes less likely: its gradient is {chosen:.3g}")
        if rejected < -NOTHING:
            raise Broken(f"a rejected completion becomes likelier: its gradient is {rejected:.3g}")
        if rejected - chosen <= 0:
            raise Broken("a chosen completion does not rise against the rejected one")


def check_labels(batch: Batch, slopes: list[float]) -> None:
    """Raise `Broken` unless good completions become likelier and bad ones less likely."""
    for label, slope in zip(batch["label"].tolist(), slopes, strict=True):
        if (slope if label else -slope) > NOTHING:
            raise Broken(f"a completion with the label {bool(label)} moves the other way")
    if not any(slopes):
        raise Broken("no completion moves")


def check_rise(batch: Batch, slopes: list[float]) -> None:
    """Raise `Broken` unless completions of a higher reward rise within their groups."""
    if "rewards" not in batch.columns:
        raise NotApplicable("the batch has no column of rewards")
    total = 0.0
    for group in batch.grouped(list(zip(batch["rewards"].tolist(), slopes, strict=True))):
        mean = sum(reward for reward, _ in group) / len(group)
        total -= sum((reward - mean) * slope for reward, slope in group)
    if len(batch.group) == len(batch):
        raise NotApplicable("there is one completion to a prompt")
    if total <= NOTHING:
        raise Broken(f"reward and rise in likelihood do not go together: {total:.3g}")


@law(
    "algorithms",
    "groups",
    says="the rewards of one prompt have no effect on the completions of another",
    cause="advantages over the whole batch, or a reshape to [G, B] in place of [B, G]",
    hook="alignzoo_advantage",
)
def check_groups(stage: Stage) -> None:
    """Change the rewards of one group, and compare the gradient of the others."""
    if "rewards" not in stage.batch.columns:
        raise NotApplicable("the batch has no column of rewards")
    touched = tuple(stage.rows[0].prompt)

    def score(prompt: Any, completion: Any) -> float:
        usual = usual_score(prompt, completion)
        return 1.0 - usual if tuple(prompt) == touched else usual

    other = stage.vary(score=score)
    first, second = stage.measure(), other.measure()
    ours, theirs = (
        {place: x for place, x in each.gradient.items() if place.prompt != touched}
        for each in (first, second)
    )
    apart, place = worst_difference(ours, theirs)
    if apart > 1e-5:
        raise Broken(
            f"rewards of another prompt change the gradient of token {place.position} by "
            f"{apart:.1%}"
        )
    if first.gradient == second.gradient:
        raise Broken("the rewards have no effect")
    if Traits.of(stage.run.algorithm).advantages_are_weights:
        check_each_reward(stage, first, second, touched)


def check_each_reward(
    stage: Stage, first: Measured, second: Measured, prompt: tuple[int, ...]
) -> None:
    """Raise `Broken` if another reward leaves the gradient of a completion as it was."""
    for places in stage.forwards.table.places(stage.batch):
        if places[0].prompt != prompt or usual_score(prompt, places[0].completion) == 0.5:
            continue
        if all(first.gradient.get(p) == second.gradient.get(p) for p in places):
            raise Broken(
                f"the reward of a completion of {len(places)} tokens has no effect on its gradient"
            )


@law(
    "algorithms",
    "same draw",
    says="two draws for one prompt are not the same draw",
    cause="one `stream` for two calls of `complete`",
    hook="alignzoo_sample",
)
def check_draws(stage: Stage) -> None:
    """Check that groups hold different completions."""
    if stage.run.algorithm.data is not Prompts:
        raise NotApplicable("the algorithm does not start from prompts")
    batch = stage.batch
    sizes: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    for group, tokens in zip(batch.group.tolist(), batch.completions(), strict=True):
        sizes[group].add(tuple(tokens))
    counts = batch.group.bincount().tolist()
    if max(counts, default=1) < 2:
        raise NotApplicable("there is one completion to a prompt")
    same = sum(len(sizes[group]) == 1 for group, count in enumerate(counts) if count > 1)
    if same > len(counts) / 2:
        raise Broken(f"in {same} of {len(counts)} groups all completions are the same")

"""Laws on extremes: no finite input may give a loss that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.stage import Measured, Score, Stage, usual_score
from alignzoo.testing.table import chance

FAR_NATS = 50.0  # nats per completion


def require_finite(measured: Measured, what: str) -> None:
    """Raise `Broken` if a loss or a gradient is not finite."""
    if not math.isfinite(measured.totals.sums["loss"]):
        raise Broken(f"the loss is {measured.totals.sums['loss']} {what}")
    if not all(map(math.isfinite, measured.gradient.values())):
        raise Broken(f"a gradient is not finite {what}")


@law(
    "algorithms",
    "far policies",
    says="log-ratios of +-50 nats, and tokens of probability 1, give a finite loss and gradient",
    cause="exp of a log-ratio, log(1 + exp(x)) written out in place of logsigmoid or softplus, or "
    "log(1 - p) at p = 1",
    hook="alignzoo_loss",
)
def check_far(stage: Stage) -> None:
    """Move the policy 50 nats from its reference, and then from where it drew, in float32."""
    single = replace(stage.table, dtype=torch.float32)
    lean = {
        places[0].completion: math.copysign(FAR_NATS, chance("lean", places[0]) - 0.5) / len(places)
        for places in stage.forwards.table.places(stage.batch)
        if places
    }
    away = stage.vary(table=replace(single, lean=lean))
    require_finite(away.measure(), f"{FAR_NATS:.0f} nats from the reference")
    moved = {
        place: lean[place.completion]
        for places in stage.forwards.table.places(stage.batch)
        for place in places
    }
    certain = stage.vary(table=replace(single, certain=True))
    require_finite(certain.measure(), "if each token has the probability 1")
    deep = stage.vary(table=replace(single, depth=FAR_NATS / 2))
    require_finite(
        deep.measure(table=replace(deep.table, shifts=moved)),
        f"{FAR_NATS:.0f} nats from the policy that drew",
    )


@law(
    "algorithms",
    "odd rewards",
    says="rewards of 1e6, and rewards that are all equal, give a finite loss and gradient",
    cause="a division by a standard deviation of 0, or a product that overflows",
    hook="alignzoo_advantage",
)
def check_odd_rewards(stage: Stage) -> None:
    """Give extreme and equal rewards."""
    if "rewards" not in stage.batch.columns:
        raise NotApplicable("the batch has no column of rewards")

    def extreme(prompt: Sequence[int], completion: Sequence[int]) -> float:
        return math.copysign(1e6, usual_score(prompt, completion) - 0.5)

    scores: dict[str, Score] = {"of 1e6": extreme, "that are all equal": lambda p, c: 0.5}
    for what, score in scores.items():
        require_finite(stage.vary(score=score).measure(), f"with rewards {what}")


@law(
    "algorithms",
    "missing reward",
    says="a completion without a reward (NaN) is left out, and the others keep theirs",
    cause="a mean that NaN spreads through; use nanmean, or leave these completions out",
    hook="alignzoo_advantage",
)
def check_missing(stage: Stage) -> None:
    """Give no reward to one completion."""
    if "rewards" not in stage.batch.columns:
        raise NotApplicable("the batch has no column of rewards")
    lost = tuple(stage.batch.completions()[0])

    def score(prompt: Sequence[int], completion: Sequence[int]) -> float:
        return math.nan if tuple(completion) == lost else usual_score(prompt, completion)

    other = stage.vary(score=score)
    measured = other.measure()
    require_finite(measured, "if a completion has no reward")
    pulled = [x for place, x in measured.gradient.items() if place.completion == lost and x]
    if pulled:
        raise Broken(f"a completion without a reward has the gradient {pulled[0]:.3g}")
    if not any(measured.gradient.values()):
        raise Broken("no completion has a gradient if one has no reward")

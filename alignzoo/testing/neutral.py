"""Laws on the start: before a step, policy, reference and sampler are one model."""

from __future__ import annotations

from dataclasses import replace

from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.stage import Stage

NEUTRAL = "neutral_loss"  # the attribute of an algorithm
VALUES = {"kl": 0.0, "approxkl_avg": 0.0, "ratio": 1.0}  # of metrics, by the end of their name


@law(
    "algorithms",
    "neutral loss",
    says="the loss has its stated value if the policy is the reference",
    cause="a reference at another temperature, a missing or doubled factor, or a sign",
    hook="alignzoo_loss",
)
def check_neutral(stage: Stage) -> None:
    """Compare the loss with the attribute `neutral_loss`."""
    expected = getattr(stage.run.algorithm, NEUTRAL, None)
    if expected is None:
        raise NotApplicable(f"the algorithm states no {NEUTRAL}")
    stage = stage.vary(table=replace(stage.table, apart=0.0))
    found = stage.measure().loss
    if abs(found - expected) > 1e-5 * max(1.0, abs(expected)):
        raise Broken(f"the loss is {found:.6g} if the policy is the reference, not {expected:.6g}")


@law(
    "algorithms",
    "first step",
    says="right after drawing every ratio is 1, and a KL to the reference that it equals is 0, at "
    "any temperature",
    cause="log-probs at another temperature than the completions were drawn at, or a stale column",
    hook="alignzoo_loss",
)
def check_first_step(stage: Stage) -> None:
    """Check metrics of ratios and KLs at temperature 1 and 0.7."""
    found = False
    for settings in ({}, {"temperature": 0.7}) if stage.draws else ({},):
        table = replace(stage.table, apart=0.0)
        varied = stage.vary(table=table, settings=settings)
        means = varied.measure().totals.means()
        numbers = {**means, **varied.run.round_metrics.numbers}
        for name, value in numbers.items():
            expected = VALUES.get(name.rpartition("/")[2])
            if expected is None:
                continue
            found = True
            if abs(value - expected) > 1e-5:
                at = f" at temperature {settings['temperature']}" if settings else ""
                raise Broken(f"metric {name!r} is {value:.4g} in the first step{at}")
    if not found:
        raise NotApplicable("no metric is a ratio or a KL")


@law(
    "algorithms",
    "temperature",
    says="completions are scored at the temperature that they were drawn at",
    cause="run.policy(batch) in place of self.policy(run, batch) of OnPolicy, or "
    "run.policy(batch, temperature=run.temperature)",
    hook="alignzoo_loss",
)
def check_temperature(stage: Stage) -> None:
    """Record the temperatures of the forward passes of a round drawn at 0.7."""
    if not stage.draws:
        raise NotApplicable("the algorithm draws no completions")
    varied = stage.vary(settings={"temperature": 0.7})
    varied.measure()
    wrong = varied.forwards.temperatures - {0.7}
    if wrong:
        raise Broken(f"log-probs are computed at temperature {wrong.pop():g}, drawn at 0.7")

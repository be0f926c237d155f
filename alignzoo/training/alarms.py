"""Alarms for common failures of training, while they happen.

After every step, the means of the last few steps are compared with those of the first few. An alarm
is reported once, and again only after it has been off; `--stop-on-alarm NAME` ends the run with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.algorithm import Traits
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput, RunFailed, count, nearest
from alignzoo.policy.untrained import COARSE
from alignzoo.rollout.mismatch import DIFFERENCE
from alignzoo.run import Run

WINDOW = 5  # steps per mean
UNSCORED = 3  # steps after which a run without any reward ends
FAR = 50.0  # nats per completion from the reference, at which rewards are no longer reliable
DRIFT = 1.5  # times as long as before training, or as short: answers to held-out prompts
NOISE = 1e-4  # nats per token between sampler and trainer; float32 was below 1e-6 in all runs
MetricsRow = Mapping[str, float]


@dataclass(frozen=True)
class Past:
    """The metrics of all steps, and of all evaluations but the last the scores and the lengths of
    answers, oldest first.

    `grouped` is False if the run draws one completion of each prompt.
    """

    rows: Sequence[MetricsRow]
    scores: Sequence[Mapping[str, Any]] = ()
    lengths: Sequence[Mapping[str, Any]] = ()
    grouped: bool = True

    def first(self, name: str) -> float | None:
        """Return the mean of a metric over the first `WINDOW` steps; None if one lacks it."""
        return window_mean(self.rows[:WINDOW], name)

    def last(self, name: str) -> float | None:
        """Return the mean of a metric over the last `WINDOW` steps; None if one lacks it."""
        return window_mean(self.rows[-WINDOW:], name)

    def rise(self, name: str) -> float | None:
        """Return by how much a metric has risen since the first `WINDOW` steps."""
        before, now = self.first(name), self.last(name)
        return None if before is None or now is None else now - before

    def before_last(self, name: str) -> float | None:
        """Return the mean of a metric over the `WINDOW` steps before the last `WINDOW`."""
        return window_mean(self.rows[-2 * WINDOW : -WINDOW], name)


def window_mean(rows: Sequence[MetricsRow], name: str) -> float | None:
    """Return the mean of a metric over `WINDOW` rows; None if not all of them have a finite one.

    A row on disk has None for a number that is not finite.
    """
    found = (row.get(name) for row in rows)
    values = [value for value in found if value is not None and math.isfinite(value)]
    return sum(values) / WINDOW if len(values) == WINDOW else None


def check_ties(past: Past) -> str | None:
    """Report that no group has completions with different rewards: advantages are 0."""
    fraction = past.last("frac_reward_zero_std")
    if not past.grouped or fraction is None or fraction < 1.0:
        return None
    return (
        f"all groups are tied for {WINDOW} steps: the completions of a prompt got the same reward, "
        "so nothing is learned; use easier or harder prompts, or a finer reward"
    )


def check_entropy(past: Past) -> str | None:
    """Report that the entropy is down to a tenth of that at the start."""
    before, now = past.first("entropy"), past.last("entropy")
    if before is None or now is None or now > 0.1 * before:
        return None
    return (
        f"entropy collapse: {now:.3g} nats per token, at the start {before:.3g}; completions "
        "hardly differ any more; try a lower --learning-rate, an entropy bonus or a larger group"
    )


def check_kl(past: Past) -> str | None:
    """Report that the policy is further than `FAR` from the reference."""
    per_token, length = past.last("kl"), past.last("completions/mean_length")
    if per_token is None or length is None or per_token * length < FAR:
        return None
    return (
        f"KL runaway: {per_token * length:.0f} nats per completion from the reference; try a lower "
        "--learning-rate or a larger --beta"
    )


def check_length(past: Past) -> str | None:
    """Report completions that are twice as long as at the start and half of which are cut off."""
    name = "completions/mean_length"
    before, now, clipped = past.first(name), past.last(name), past.last("completions/clipped_ratio")
    if before is None or now is None or clipped is None or now < 2 * before or clipped < 0.5:
        return None
    return (
        f"length explosion: {now:.0f} tokens, at the start {before:.0f}, and {clipped:.0%} of the "
        "completions are cut off; add --reward length,most=... or a larger --max-new-tokens"
    )


def check_overoptimised(past: Past) -> str | None:
    """Report that the reward has risen while the score is below its best, by their intervals.

    The policy then exploits the reward (Gao et al. 2022, https://arxiv.org/abs/2210.10760).
    """
    before, now = past.first("reward"), past.last("reward")
    if before is None or now is None or now <= before or len(past.scores) < 2:
        return None
    best, latest = max(past.scores, key=lambda s: s["mean"]), past.scores[-1]
    if latest["high"] is None or best["low"] is None or latest["high"] >= best["low"]:
        return None
    return (
        f"over-optimisation: the reward rose from {before:.3g} to {now:.3g} while the score fell "
        f"from {best['mean']:.3g} to {latest['mean']:.3g}; stop earlier, or stay closer to the "
        "reference"
    )


def check_sampler(past: Past) -> str | None:
    """Report log-probs of the sampler that have left the trainer's: the weights did not arrive.

    In the first step both have the weights at the start, so their gap is the noise of the kernels;
    later gaps may be ten times that. `COARSE` is the most that the guard of the first step allows.
    """
    name = f"{DIFFERENCE}/mean"
    noise, now = past.rows[0].get(name), past.last(name)
    if noise is None or now is None or not now > min(max(10 * noise, NOISE), COARSE):
        return None
    return (
        f"the sampler does not have the trainer's weights: their log-probs differ by {now:.2g} "
        f"nats per token, in the first step by {noise:.2g}; does it load the weights of every step?"
    )


def check_displacement(past: Past) -> str | None:
    """Report that chosen completions lose probability while their margins rise.

    Their log-prob is at most 1.5 times that at the start, and their reward fell by at least as much
    as the margin rose (likelihood displacement, Razin et al. 2024,
    https://arxiv.org/abs/2410.08847). Fresh completions are different ones in every round, so
    theirs are not compared.
    """
    if "completions/mean_length" in past.rows[-1]:
        return None
    before, now = past.first("logps/chosen"), past.last("logps/chosen")
    reward, margin = past.rise("rewards/chosen"), past.rise("rewards/margins")
    if before is None or now is None or reward is None or margin is None:
        return None
    if now > 1.5 * before or not 0 < margin <= -reward:
        return None
    return (
        f"likelihood displacement: the log-prob of chosen completions fell from {before:.3g} to "
        f"{now:.3g} while the margin rose by {margin:.3g}; try a lower --learning-rate, or a loss "
        "with a term for the chosen side"
    )


def check_saturated(past: Past) -> str | None:
    """Report that all pairs are learned and their margins still grow.

    The accuracy is at least 0.99, the loss at most a tenth of that at the start, and the margin
    above that of the steps before.
    """
    accuracy, margin = past.last("rewards/accuracies"), past.last("rewards/margins")
    earlier = past.before_last("rewards/margins")
    before, now = past.first("loss"), past.last("loss")
    if accuracy is None or margin is None or earlier is None or before is None or now is None:
        return None
    if accuracy < 0.99 or margin <= earlier or not 0 <= now <= 0.1 * before:
        return None
    return (
        f"saturated: {accuracy:.0%} of the pairs are ranked right at a loss of {now:.2g}, at the "
        f"start {before:.2g}, and the margin still grows, {margin:.3g}; stop earlier, or use more "
        "or harder pairs"
    )


def check_drift(past: Past) -> str | None:
    """Report answers to held-out prompts that are `DRIFT` times as long as before training.

    Or as many times shorter; their intervals lie apart. Algorithms that draw nothing have no other
    sign of it, such as DPO on pairs whose chosen side is the longer one.
    """
    if len(past.lengths) < 2:
        return None
    before, now = past.lengths[0], past.lengths[-1]
    if None in (before["low"], before["high"], now["low"], now["high"]):
        return None
    longer = now["mean"] >= DRIFT * before["mean"] and now["low"] > before["high"]
    shorter = now["mean"] <= before["mean"] / DRIFT and now["high"] < before["low"]
    if not longer and not shorter:
        return None
    return (
        f"length drift: answers to held-out prompts have {now['mean']:.0f} tokens, before training "
        f"{before['mean']:.0f}; does the data prefer {'long' if longer else 'short'} completions? "
        "Try a lower --learning-rate, or a loss that divides by lengths, such as simpo"
    )


ALARMS: dict[str, Callable[[Past], str | None]] = {
    "ties": check_ties,
    "entropy": check_entropy,
    "kl": check_kl,
    "length": check_length,
    "overoptimised": check_overoptimised,
    "sampler": check_sampler,
    "displacement": check_displacement,
    "saturated": check_saturated,
    "drift": check_drift,
}
# These watch evaluations, or pairs; the others watch completions that the run draws.
OF_EVALUATIONS = ("drift",)
OF_PAIRS = ("displacement", "saturated")


class Alarms:
    """The alarms of a run, registered with every run. `stop_on` names those that end it."""

    def __init__(self, stop_on: Sequence[str] = ()):
        for name in stop_on:
            if name not in ALARMS:
                raise BadInput(
                    f"option --stop-on-alarm: no alarm {name!r}", hint=nearest(name, ALARMS)
                )
        self.stop_on = stop_on
        self.rows: list[dict[str, float]] = []
        self.read = False
        self.ringing: set[str] = set()

    @hookimpl(trylast=True)
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        """Report new alarms, log all that are on as `alarms/NAME`, and stop the run if told to."""
        if not self.read:  # the steps of a resumed run are on disk
            self.rows, self.read = run.record.read_metrics(step), True
            self.ringing = {name for name, _ in find_alarms(self.past(run))}
        self.rows.append(dict(metrics))
        if not any("reward" in row or "frac_reward_zero_std" not in row for row in self.rows):
            check_rewards_apply(run, step, len(self.rows))
        found = dict(find_alarms(self.past(run)))
        for name, text in found.items():
            metrics[f"alarms/{name}"] = 1.0
            if name not in self.ringing:
                run.ui.note(f"step {step}: {text}")
                if name in self.stop_on:
                    run.stop(f"alarm {name!r} at step {step}")
        self.ringing = set(found)

    def past(self, run: Run) -> Past:
        """Return the metrics, the scores and the lengths so far."""
        phases = [found for phase, found in run.record.results.items() if phase != "after"]
        scores, lengths = (
            [found[name] for found in phases if name in found] for name in ("score", "length")
        )
        grouped = Traits.of(run.algorithm).group_size > 1
        return Past(self.rows, scores, lengths, grouped)


def check_rewards_apply(run: Run, step: int, steps: int) -> None:
    """Tell the user that no reward has applied so far; raise `RunFailed` if that goes on."""
    problem = "no reward applied to any completion"
    if steps < UNSCORED and not run.schedule.done:
        run.ui.note(f"step {step}: {problem}: nothing is learned from these")
        return
    raise RunFailed(
        f"{problem} in {count(steps, 'step')}: nothing is learned",
        hint="do the rows have the column that the reward reads, and does the judge, if there is "
        "one, give usable answers?",
    )


def find_alarms(past: Past) -> list[tuple[str, str]]:
    """Return the alarms that are on, `(name, message)`; none in the first two windows of steps."""
    if len(past.rows) < 2 * WINDOW:
        return []
    found = ((name, alarm(past)) for name, alarm in ALARMS.items())
    return [(name, text) for name, text in found if text is not None]
